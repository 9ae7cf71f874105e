"""Optimizers without the wrappers that import PyTorch's compiler, which would take a second."""

import inspect

import torch


class Eager(torch.optim.Optimizer):
    """PyTorch's own methods, unwrapped: nothing here compiles an optimizer."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class EagerAdamW(Eager, torch.optim.AdamW):
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
