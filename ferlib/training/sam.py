"""Sharpness-aware minimization: the gradient is taken where the loss is worst nearby. torch has no SAM.

One SAM step is two gradients::

    g  = grad L(w)
    w' = w + rho * g / |g|_2                 climb to the worst point of a small ball
    w <- base_optimizer(w, grad L(w'))       come back, then descend with the gradient found up there

Foret et al., 2021 (arXiv 2010.01412), equation 2 and algorithm 1; POSTER V2 trains with it. Chapter 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class SAM(torch.optim.Optimizer):
    r"""SAM around any PyTorch optimizer.

    .. math:: \hat\epsilon = \rho\, g / \lVert g \rVert_2, \qquad
              w \leftarrow \mathrm{base}\bigl(w,\ \nabla L(w + \hat\epsilon)\bigr)

    Use it as any optimizer with a closure, ``optimizer.step(closure)``, where the closure clears the
    gradients, computes the loss, calls ``backward`` and returns the loss; it is called twice. The pair
    ``first_step`` / ``second_step`` does the same by hand.

    ``state_dict`` carries the base optimizer's state (Adam's moments), so that a resumed run goes on as if
    it had never stopped. The class in the released code loses it: its own dictionary holds only the saved
    weights of the last step.

    Source: Foret et al. 2021, algorithm 1. Chapter 6.

    Args:
        params: Parameters of any shape or parameter groups, as for every optimizer.
        base_optimizer: Class of the optimizer that does the descent, such as ``torch.optim.Adam``.
        rho: Radius of the ball, in the units of the weights, above 0 (POSTER V2 uses 0.05).
        base_options: Passed to the base optimizer (``lr``, ``weight_decay``, ...).

    Raises:
        ValueError: For ``rho <= 0``.
        RuntimeError: For ``step`` without a closure or ``second_step`` without a ``first_step``.
    """

    def __init__(
        self,
        params: Iterable,
        base_optimizer: type[torch.optim.Optimizer],
        *,
        rho: float = 0.05,
        **base_options: Any,
    ) -> None:
        if not rho > 0:
            raise ValueError(f"rho is {rho}, expected a number above 0; use the base optimizer for no ball")
        super().__init__(params, dict(rho=rho, **base_options))
        self.base = base_optimizer(self.param_groups, **base_options)
        self.param_groups = self.base.param_groups  # one list: a schedule that sets lr reaches both
        self.defaults.update(self.base.defaults)
        self._origin: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        """Climb: ``w <- w + rho * g / |g|``; the starting point is kept."""
        norm = self._gradient_norm()
        for group in self.param_groups:
            scale = group["rho"] / (norm + 1e-12)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                self._origin[parameter] = parameter.clone()
                parameter.add_(parameter.grad * scale.to(parameter))
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad: bool = False) -> None:
        """Return to the starting point and let the base optimizer descend."""
        if not self._origin:
            raise RuntimeError("second_step was called without first_step: there is no point to return to")
        self._return_to_origin()
        self.base.step()
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor:
        """One whole SAM step; returns the loss of the first pass, a scalar."""
        if closure is None:
            raise RuntimeError("SAM needs two gradients per step: call step(closure), as with LBFGS")
        with torch.enable_grad():
            loss = closure()
        self.first_step()
        try:
            with torch.enable_grad():
                closure()
        except BaseException:
            self._return_to_origin()  # a stopped run must not leave the weights on top of the hill
            raise
        self.second_step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """``{"base": state of the base optimizer}``; ``rho`` is in its groups."""
        return {"base": self.base.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state made by ``state_dict``.

        Raises:
            ValueError: Where the base optimizer's state is missing (released POSTER V2 checkpoints).
        """
        if "base" not in state_dict:
            raise ValueError(
                f"this state has the keys {sorted(map(str, state_dict))}, expected 'base': it was not "
                "saved by ferlib's SAM and holds no state of the base optimizer; start the optimizer afresh"
            )
        self.base.load_state_dict(state_dict["base"])
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def _return_to_origin(self) -> None:
        for parameter, origin in self._origin.items():
            parameter.copy_(origin)
        self._origin.clear()

    def _gradient_norm(self) -> Tensor:
        norms = [
            parameter.grad.norm(p=2)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        if not norms:
            raise RuntimeError("no parameter has a gradient: call loss.backward() before the step")
        return torch.stack([norm.to(norms[0].device) for norm in norms]).norm(p=2)
