"""A pretend GPU: tensors that say they are on `cuda:0`, with their numbers in the memory of the CPU.

    with PretendGPU() as gpu:  # torch.cuda.is_available() is true in here
        with gpu.counting() as counts:
            pretrain(recipe, out)
    print(counts.launches, counts.waits)

Every operation passes through `_run`, below autograd and autocast. It refuses operands on two devices as CUDA does, computes on
the CPU, and counts what a GPU would pay (`pretend_costs`).

Streams are refused what they would read too early (`pretend_streams`), and autocast casts (`pretend_autocast`). It cannot see
numerics of CUDA kernels, memory that is used again too early or is full, NCCL, and FAISS on a GPU. It needs a torch built for
CUDA (the one from PyPI on Linux), but no GPU and no driver.
"""

from __future__ import annotations

import functools
import sys
import threading
from contextlib import ExitStack, nullcontext
from unittest import mock

import torch
import torch._dynamo  # now: it reads attributes of torch.cuda that are replaced later
from support import pretend_autocast, pretend_streams
from support.pretend_costs import count, count_kernel, count_transfer, count_wait, counting, line, waited
from torch.optim import optimizer
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
BACKEND = "pretend"  # the device for C++, where autograd would ask a driver about one of CUDA

INDEXING = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index_put.default,
}
WITHOUT_CPU_NUMBERS = {  # kernels that refuse even a CPU tensor without dimensions
    aten.scatter_.src,
    aten.gather.default,
    aten.index_select.default,
    aten.mm.default,
    aten.bmm.default,
}
AUTOCAST = ("set_autocast_enabled", "set_autocast_dtype")
CONVERSIONS = {aten.to.device, aten.to.dtype, aten.to.dtype_layout, aten.to.other}


class MixedDevices(RuntimeError):
    """Operands on two devices, as CUDA refuses them."""


class Race(RuntimeError):
    """An operand that another stream computes, and that the present one has not waited for."""


class OnGPU(torch.Tensor):
    """A tensor on the pretend GPU; `numbers` is the CPU tensor that holds its values, with the same strides.

    `made` is the operation that wrote it, and `streams` are those that `record_stream` was called with.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            layout=numbers.layout,
            device=torch.device(BACKEND, 0),
        )

    def __init__(self, numbers: torch.Tensor):
        self.numbers = numbers
        self.made, self.streams = pretend_streams.current().next(), []

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def record_stream(self, stream) -> None:
        self.streams.append(stream)

    def get_device(self) -> int:
        return 0

    def is_pinned(self, *_) -> bool:
        return False

    def numpy(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def tolist(self):
        return self.cpu().tolist()

    def __tensor_flatten__(self):  # so that `Module.to` swaps tensors, which may have other strides
        return ["numbers"], None

    @staticmethod
    def __tensor_unflatten__(inner, *_):
        return OnGPU(inner["numbers"])

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, other):
        if not isinstance(other, OnGPU):
            raise MixedDevices("`.data =` of a CPU tensor to a tensor on cuda:0")
        if (self.shape, self.stride()) != (other.shape, other.stride()):
            raise NotImplementedError("`.data =` with another shape or other strides")
        self.numbers = other.numbers

    def __reduce_ex__(self, protocol):
        return self.numbers.detach().__reduce_ex__(protocol)  # as saved, and loaded with map_location="cpu"

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            copy = OnGPU(self.numbers.detach().clone())
            if isinstance(self, torch.nn.Parameter):
                copy = torch.nn.Parameter(copy, self.requires_grad)
            memo[id(self)] = copy.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __repr__(self, *, tensor_contents=None):
        return f"OnGPU({self.numbers!r})"


class PretendGPU:
    """A context in which this process has one GPU.

    Args:
        bf16: Whether it computes bf16 natively.
    """

    counting = staticmethod(counting)

    def __init__(self, bf16: bool = True):
        self.bf16 = bf16

    def __enter__(self) -> PretendGPU:
        _register()
        _forget_device()
        self._stack = ExitStack()
        lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        self._stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        for name in ("enabled", "benchmark", "allow_tf32"):
            self._stack.callback(setattr, torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
        torch.backends.cudnn.enabled = False  # its operations have no counterpart on the CPU
        for owner, name, value in self._replaced():
            self._stack.enter_context(mock.patch.object(owner, name, value))
        self._stack.enter_context(torch.autograd.set_multithreading_enabled(False))  # backward passes in this thread
        self._stack.enter_context(_Everything())
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        _forget_device()

    def _replaced(self) -> list[tuple]:
        """Functions of torch that would ask a driver, and their replacements."""
        rng = {"state": torch.zeros(16, dtype=torch.uint8)}
        answers = {
            "is_available": True,
            "is_initialized": True,
            "is_current_stream_capturing": False,
            "_lazy_init": None,
            "device_count": 1,
            "current_device": 0,
            "set_device": None,
            "empty_cache": None,
            "get_device_name": "pretend GPU",
            "get_device_capability": (9, 0),
            "is_bf16_supported": self.bf16,
            "max_memory_allocated": 0,
            "memory_allocated": 0,
            "reset_peak_memory_stats": None,
            "mem_get_info": (80 << 30, 80 << 30),
            "manual_seed": None,
            "manual_seed_all": None,
        }
        of_accelerator = {
            "is_available": True,
            "current_accelerator": CUDA,
            "current_device_index": 0,
            "set_device_index": None,
        }
        return [
            *((torch.cuda, name, _always(value)) for name, value in answers.items()),
            *((torch.accelerator, name, _always(value)) for name, value in of_accelerator.items()),
            (torch.cuda, "synchronize", lambda *_: waited("synchronize")),
            (torch.cuda, "get_rng_state", lambda *_: rng["state"].clone()),
            (torch.cuda, "set_rng_state", lambda state, *_: rng.update(state=state.clone())),
            (torch.cuda, "Event", _Event),
            (torch.cuda, "Stream", pretend_streams.Stream),
            (torch.cuda, "stream", pretend_streams.on),
            (torch.cuda, "current_stream", pretend_streams.current),
            (torch.Tensor, "pin_memory", _pinned),
            *((torch, name, pretend_autocast.switch(getattr(torch, name), BACKEND)) for name in AUTOCAST),
            (torch.nn.Module, "_apply", _apply),
            (threading.Thread, "run", _run_thread),
            (optimizer, "_foreach_supported_types", [*optimizer._foreach_supported_types, OnGPU]),
        ]


class _Event(pretend_streams.Event):
    """An event that the host can wait for."""

    def synchronize(self) -> None:
        waited("event")


class _Everything(TorchDispatchMode):
    """Passes every operation to `_run`, also those without a tensor on the GPU, such as factories."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


def _run(operation, args, kwargs):
    """Check, count and compute one operation."""
    device = kwargs.get("device")
    leaves = pytree.tree_leaves((args, kwargs))
    if not _on_gpu(device) and not any(isinstance(leaf, OnGPU) for leaf in leaves):
        return operation(*args, **kwargs)
    if not all(pretend_streams.current().knows(leaf.made) for leaf in leaves if isinstance(leaf, OnGPU)):
        raise Race(f"{operation}: an operand of another stream, which the present one has not waited for, at {line()}")
    if operation is aten._to_copy.default:
        return _copied(args[0], kwargs)
    if operation in CONVERSIONS:  # in inference mode operations arrive as they were called
        return _converted(operation, args, kwargs)
    if _is_composite(operation):
        with _Everything():
            return operation.decompose(*args, **kwargs)
    if operation is aten._fused_sdp_choice.default:
        return 0  # plain matrix products: the fused kernels have no counterpart on the CPU
    _check(operation, args, kwargs, leaves)
    count_wait(operation, kwargs)
    plain = {name: value for name, value in kwargs.items() if name not in ("device", "pin_memory", "non_blocking")}
    if device is not None:
        plain["device"] = CPU
    numbers, plain = pytree.tree_map(_numbers, (args, plain))
    result = operation(*numbers, **plain)
    if device is not None and not _on_gpu(device):
        return result
    count_kernel(operation, (numbers, plain), result)
    return _wrapped(operation, args, kwargs, result)


def _wrapped(operation, args, kwargs, result):
    """New results on the GPU; an operand that was written in place is the result itself."""
    returns = operation._schema.returns
    if any(each.alias_info is not None and each.alias_info.is_write for each in returns):
        if torch.Tag.inplace_view in operation.tags and operation is not aten.detach_.default:
            _change_shape(operation, args, kwargs)
        written = [
            args[number] if number < len(args) else kwargs.get(argument.name)
            for number, argument in enumerate(operation._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        for tensor in written:
            if isinstance(tensor, OnGPU):
                tensor.made = pretend_streams.current().next()
        if len(returns) == 1:
            return written[0]
        return type(result)(written) if len(written) == len(returns) else result
    of_normal = operation.is_view and isinstance(args[0], torch.Tensor) and not args[0].is_inference()
    with torch.inference_mode(False) if of_normal else nullcontext():  # a view of a parameter is no inference tensor
        return pytree.tree_map(lambda value: OnGPU(value) if type(value) is torch.Tensor else value, result)


def _change_shape(operation, args, kwargs) -> None:
    """Change sizes and strides of the wrapper itself, as `return_and_correct_aliasing` of torch does."""
    with torch.utils._mode_utils.no_dispatch():
        before = torch._C._meta_in_tls_dispatch_include()
        torch._C._set_meta_in_tls_dispatch_include(True)
        try:
            operation(*args, **kwargs)
        finally:
            torch._C._set_meta_in_tls_dispatch_include(before)


def _converted(operation, args, kwargs):
    """`Tensor.to`: a copy, or the tensor itself if nothing changes."""
    names = [argument.name for argument in operation._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    source, other = given["self"], given.get("other")
    device = other.device if other is not None else given.get("device")
    dtype = (other.dtype if other is not None else given.get("dtype")) or source.dtype
    same = dtype == source.dtype and (device is None or _on_gpu(device) == isinstance(source, OnGPU))
    if same and not given.get("copy") and given.get("memory_format") in (None, torch.preserve_format):
        return source
    wanted = {name: given.get(name) for name in ("non_blocking", "memory_format")} | {"dtype": dtype}
    return _copied(source, wanted if device is None else {**wanted, "device": device})


def _copied(source, kwargs):
    """A copy on the wanted device; one between devices blocks unless it is told not to."""
    device, there = kwargs.get("device"), isinstance(source, OnGPU)
    to_gpu = there if device is None else _on_gpu(device)
    numbers = _numbers(source)
    plain = {name: value for name, value in kwargs.items() if name not in ("device", "non_blocking", "pin_memory")}
    copy = aten._to_copy.default(numbers, **plain)
    if copy.data_ptr() == numbers.data_ptr():
        copy = copy.clone()
    copied = OnGPU(copy) if to_gpu else copy  # before a wait of the host, which is for this copy
    if to_gpu != there:
        count_transfer(to_gpu, bool(kwargs.get("non_blocking")))
    elif to_gpu:
        count(1, numbers.nbytes + copy.nbytes)
    return copied


# What CUDA refuses


def _check(operation, args, kwargs, leaves) -> None:
    """Refuse operands on two devices; count the wait of a copy between them, and of indices from the CPU."""
    if operation is aten.copy_.default:
        target, source = args[:2]
        asynchronous = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        if isinstance(source, OnGPU) != isinstance(target, OnGPU) and (isinstance(source, OnGPU) or source.dim()):
            count_transfer(isinstance(target, OnGPU), asynchronous)
    elif operation in INDEXING:
        _check_indices(operation, *args[:3])
    elif any(isinstance(leaf, OnGPU) for leaf in leaves):
        for leaf in leaves:
            on_cpu = isinstance(leaf, torch.Tensor) and not isinstance(leaf, OnGPU)
            if on_cpu and (leaf.dim() or operation in WITHOUT_CPU_NUMBERS):
                raise MixedDevices(
                    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                    f"({operation}, a CPU tensor of shape {tuple(leaf.shape)}) at {line()}"
                )


def _check_indices(operation, target, indices, values=None) -> None:
    on_gpu = isinstance(target, OnGPU)
    for index in (index for index in indices if index is not None):
        if isinstance(index, OnGPU) and not on_gpu:
            raise MixedDevices(f"indices should be on the same device as the indexed tensor (cpu) at {line()}")
        if isinstance(index, OnGPU) and index.dtype in (torch.bool, torch.uint8):
            if values is None or values.numel() > 1:  # with one value it becomes masked_fill
                waited("boolean mask")
        elif on_gpu and not isinstance(index, OnGPU):
            waited("index from the CPU")
    if isinstance(values, torch.Tensor) and isinstance(values, OnGPU) != on_gpu and (values.dim() or not on_gpu):
        raise MixedDevices(f"{operation}: target and values are on two devices, cuda:0 and cpu, at {line()}")


# Small parts


def _numbers(value):
    return value.numbers if isinstance(value, OnGPU) else value


def _on_gpu(device) -> bool:
    return device is not None and torch.device(device).type in ("cuda", BACKEND)


@functools.cache
def _is_composite(operation) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        operation.name(), torch._C.DispatchKey.CompositeImplicitAutograd
    )


@functools.cache
def _register() -> None:
    """Register a backend, which answers what autograd asks about devices and streams. It stays until the process ends."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    torch._C._ensureCUDADeviceGuardSet()
    _setup_privateuseone_for_python_backend(BACKEND)
    pretend_autocast.register(BACKEND)


def is_possible() -> bool:
    """Whether this torch can register a backend from Python, and was built for CUDA."""
    from torch.utils import backend_registration

    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend") and torch.version.cuda is not None


def _forget_device() -> None:
    """Make Accelerate forget the device of this process."""
    state = sys.modules.get("accelerate.state")
    if state is not None:
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()


def _always(value):
    return lambda *_, **__: value


def _pinned(tensor, *_):
    return tensor.clone()


def _run_thread(thread, *, original=threading.Thread.run):
    """`Thread.run` with the pretend GPU, which else only the thread that entered it would have."""
    with _Everything():
        original(thread)


def _apply(module, change, recurse=True, *, original=torch.nn.Module._apply):
    """`Module._apply` for torch's older weight norm, whose computed weight would keep the graph of the old parameters."""
    if "weight_g" in module._parameters and isinstance(module.__dict__.get("weight"), torch.Tensor):
        module.__dict__["weight"] = module.__dict__["weight"].detach()
    return original(module, change, recurse)
