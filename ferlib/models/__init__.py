"""The networks of both papers: plain torch modules that know nothing of data, losses or training."""

from ferlib.models.mobilefacenet import MobileFaceNet, MobileFaceNetOutput

__all__ = ["MobileFaceNet", "MobileFaceNetOutput"]
