"""Records a native graph in canonical form: one file for each family of operations, the recorder behind them all."""
