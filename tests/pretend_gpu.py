"""A GPU for want of one: tensors that lie on the CPU and say that they lie on cuda:0.

    with PretendGPU(monkeypatch) as gpu:
        train_ppo.train(...)        device auto takes it
    gpu.waits                       how often the CPU asked for a number that the GPU has

What a real one refuses is refused: a CPU tensor beside a GPU's, a generator or its state of the
other side, numpy(). Autocast on it is the CPU's, in bf16. What it computes is what a CPU computes.
"""
import torch
import torch._dynamo  # imported by the first optimizer, which must find torch as it is
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

CUDA = torch.device("cuda", 0)
TENSOR = torch.Tensor
# what makes the CPU wait until the GPU is there
WAITS = {TENSOR.item, TENSOR.tolist, TENSOR.__bool__, TENSOR.__int__, TENSOR.__float__,
         TENSOR.__index__, TENSOR.nonzero, torch.nonzero, TENSOR.masked_select}
REFUSED = {TENSOR.numpy: "numpy()", TENSOR.__array__: "numpy"}
# between the two sides
CROSSING = {TENSOR.copy_, TENSOR.to}


class OnGPU(torch.Tensor):
    """A CPU tensor in disguise. What is made of one is one: torch sees to that for subclasses."""

    def __deepcopy__(self, memo):
        copy = self.detach().clone()
        memo[id(self)] = copy = (torch.nn.Parameter(copy, self.requires_grad)
                                 if isinstance(self, torch.nn.Parameter) else copy)
        return copy


def is_cuda(device):
    return device is not None and torch.device(device).type == "cuda"


class Generator(torch.Generator):
    """Of the pretended side. Its state is one byte longer, as a real one's has another size."""

    device = CUDA

    def get_state(self):
        return torch.cat([super().get_state(), torch.ones(1, dtype=torch.uint8)])

    def set_state(self, state):
        if len(state) != len(self.get_state()):
            raise RuntimeError("RNG state is wrong size: it is a CPU's")
        return super().set_state(state[:-1].clone())


class EitherGenerator(torch.Generator):
    """torch.Generator(device) of either side."""

    def __new__(cls, device="cpu"):
        return Generator() if is_cuda(device) else REAL["Generator"]()


REAL = {"Generator": torch.Generator, "autocast": torch.autocast, "save": torch.save,
        "is_autocast_enabled": torch.is_autocast_enabled}


def tensors(*trees):
    return [x for tree in trees for x in _pytree.tree_leaves(tree) if isinstance(x, TENSOR)]


def to_cpu(x):
    return x.detach().as_subclass(TENSOR).clone() if isinstance(x, OnGPU) else x


class PretendGPU(TorchFunctionMode):
    def __init__(self, monkeypatch):
        super().__init__()
        self.waits, self.patch = 0, monkeypatch

    def __enter__(self):
        p, cpu = self.patch, lambda device: "cpu" if is_cuda(device) else device
        p.setattr(torch.cuda, "is_available", lambda: True)
        p.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
        p.setattr(torch, "set_float32_matmul_precision", lambda precision: None)
        p.setattr(torch, "Generator", EitherGenerator)
        p.setattr(torch, "autocast", lambda kind, *args, **more:
                  REAL["autocast"](cpu(kind), *args, **more))
        p.setattr(torch, "is_autocast_enabled", lambda kind: REAL["is_autocast_enabled"](cpu(kind)))
        # a real one saves what lies on cuda:0, and map_location brings it to the CPU
        p.setattr(torch, "save", lambda state, *args, **more:
                  REAL["save"](_pytree.tree_map(to_cpu, state), *args, **more))
        p.setattr(torch.nn.Module, "to", moved)
        return super().__enter__()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        here = tensors(args, kwargs)
        on_gpu = any(isinstance(x, OnGPU) for x in here)
        if func == TENSOR.device.__get__:
            return CUDA if on_gpu else func(*args)
        if func == TENSOR.is_cuda.__get__:
            return on_gpu
        if func == TENSOR.grad.__get__:         # which torch leaves as the base class
            grad = func(*args)
            return grad.as_subclass(OnGPU) if on_gpu and grad is not None else grad
        if func in REFUSED and on_gpu:
            raise TypeError(f"can't convert cuda:0 device type tensor to {REFUSED[func]}")
        if func in (TENSOR.to, TENSOR.cpu, TENSOR.cuda):
            return self.move(func, args, kwargs)
        self.check(func, args, kwargs, here, on_gpu)
        if func in WAITS or self.by_mask(func, args):
            self.waits += on_gpu
        if "device" in kwargs and is_cuda(kwargs["device"]):
            return func(*args, **{**kwargs, "device": "cpu"}).as_subclass(OnGPU)
        return func(*args, **kwargs)

    def move(self, func, args, kwargs):
        """x.to(device, ...), x.to(other), x.to(dtype), x.cpu(), x.cuda()"""
        x, *rest = args
        target = {TENSOR.cpu: torch.device("cpu"), TENSOR.cuda: CUDA}.get(func)
        for where in (kwargs.pop("device", None), *rest):
            if isinstance(where, OnGPU):
                target = CUDA
            elif isinstance(where, TENSOR):
                target = torch.device("cpu")
            elif isinstance(where, str | torch.device):
                target = torch.device(where)
        rest = [r for r in rest if not isinstance(r, str | torch.device)]
        if func is TENSOR.to and (rest or kwargs):
            x = func(x, *rest, **kwargs)
        if target is None or is_cuda(target) == isinstance(x, OnGPU):
            return x
        if is_cuda(target):
            return x.clone().as_subclass(OnGPU)
        self.waits += 1
        return x.as_subclass(TENSOR).clone()

    def check(self, func, args, kwargs, here, on_gpu):
        asked = kwargs.get("device")
        source = kwargs.get("generator")
        if source is not None:
            side = is_cuda(asked) or on_gpu
            if side != isinstance(source, Generator):
                raise RuntimeError(f"Expected a {'cuda' if side else 'cpu'} device type for "
                                   f"generator in {func.__name__}")
        # a single number may come from the CPU; so may an index, and what is written is copied
        strangers = [x for x in here if not isinstance(x, OnGPU) and x.dim()]
        if on_gpu and strangers and func not in CROSSING:
            index = tensors(args[1]) if func in (TENSOR.__getitem__, TENSOR.__setitem__) else ()
            if isinstance(args[0], OnGPU) and index or (
                    func == TENSOR.__setitem__ and not any(isinstance(x, OnGPU) for x in index)):
                self.waits += 1
                return
            raise RuntimeError("Expected all tensors to be on the same device, but found at least "
                               f"two devices, cuda:0 and cpu, in {func.__name__}")

    def by_mask(self, func, args):
        """x[mask], whose size the CPU must know."""
        return func == TENSOR.__getitem__ and any(x.dtype == torch.bool for x in tensors(args[1]))


def moved(module, device):
    """nn.Module.to: parameters of the other side, in place."""
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None and is_cuda(device) != isinstance(p, OnGPU):
                part._parameters[name] = torch.nn.Parameter(p.detach().to(device), p.requires_grad)
        for name, b in part._buffers.items():
            part._buffers[name] = b.to(device)
    return module
