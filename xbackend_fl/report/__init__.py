"""What people read of a run: lines, a live table, and the page that sums it up."""

from xbackend_fl.report.lines import describe
from xbackend_fl.report.live import LiveTable
from xbackend_fl.report.summary import Participation, Result, summary

__all__ = ["LiveTable", "Participation", "Result", "describe", "summary"]
