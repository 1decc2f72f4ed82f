"""Explanation: recorded attention, rollout, Grad-CAM, and scores that tell how far to trust a map.

Maps by name and what they are compared with are in ``book.figures.maps``. Chapter 8.
"""

from ferlib.explain.cam import channels_last_to_map, grad_cam, target_layer, tokens_to_map
from ferlib.explain.recorder import Attention, AttentionRecorder, output_logits
from ferlib.explain.rollout import rollout, token_map
from ferlib.explain.scores import attention_score

__all__ = [
    "Attention",
    "AttentionRecorder",
    "attention_score",
    "channels_last_to_map",
    "grad_cam",
    "output_logits",
    "rollout",
    "target_layer",
    "token_map",
    "tokens_to_map",
]
