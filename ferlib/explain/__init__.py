"""Explanation: attention recorded, rolled out, Grad-CAM, and scores that say how far a map can be trusted.

Chapter 8.
"""

from ferlib.explain.cam import grad_cam, target_layer, tokens_to_map
from ferlib.explain.recorder import Attention, AttentionRecorder
from ferlib.explain.rollout import rollout, token_map
from ferlib.explain.scores import attention_score

__all__ = [
    "Attention", "AttentionRecorder", "attention_score", "grad_cam", "rollout", "target_layer", "token_map",
    "tokens_to_map",
]  # fmt: skip
