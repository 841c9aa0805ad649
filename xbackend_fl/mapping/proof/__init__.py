"""Numbers decide: what two models did with the probes, compared against a tolerance and against measured rounding."""
