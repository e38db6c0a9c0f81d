"""What plugs into other people's programs: a callback for anyone's Trainer.

Read in this order: `callback` (when to measure), `curve_folder` (what is kept, and how a resumed run goes on), `curve` (the tables and the figure).
"""

from lmdissect.integrations.callback import ShiftCallback
from lmdissect.integrations.curve import CURVE_SCHEMAS, read_curve, write_curve_figure

__all__ = ["CURVE_SCHEMAS", "ShiftCallback", "read_curve", "write_curve_figure"]
