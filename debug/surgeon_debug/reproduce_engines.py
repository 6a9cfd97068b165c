"""The part of ``reproduce.py`` that is about one engine; each defines ``engine()``, which returns ``prepare``.

They do what the runners of the same name do, with nothing but the engine. Braces are doubled, for ``str.format``.
"""

ONNXRUNTIME = '''
OPTIONS = {options}


def engine():
    """Makes the session; returns what runs it."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise CannotRun(f"onnxruntime is not installed: {{error}}") from None
    options = ort.SessionOptions()
    options.log_severity_level = 4
    asked = OPTIONS.get("optimize", "all")
    level = "ORT_DISABLE_ALL" if asked == "none" else f"ORT_ENABLE_{{asked.upper()}}"
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.intra_op_num_threads = int(OPTIONS.get("threads", "0"))
    options.use_deterministic_compute = OPTIONS.get("deterministic", "").lower() in ("1", "true", "yes", "on")
    for key, value in OPTIONS.items():
        if key.startswith("config."):
            options.add_session_config_entry(key.removeprefix("config."), value)
        elif key.startswith("option."):
            name = key.removeprefix("option.")
            now = getattr(options, name)
            if hasattr(type(now), "__members__"):
                value = type(now).__members__[value]
            elif isinstance(now, bool):
                value = value.lower() in ("1", "true", "yes", "on")
            else:
                value = type(now)(value)
            setattr(options, name, value)
    known = {{name.removesuffix("ExecutionProvider").lower(): name for name in ort.get_available_providers()}}
    asked = OPTIONS.get("providers", "cpu").split(";")
    words = [word.strip().removesuffix("ExecutionProvider").lower() for word in asked]
    for word in words:
        if word not in known:
            raise CannotRun(f"this onnxruntime has no execution provider {{word}}, only {{', '.join(known)}}")
    own = [{{}} for _ in words]
    for key, value in OPTIONS.items():
        if key.startswith("provider."):
            owner, dot, inner = key.removeprefix("provider.").partition(".")
            at, name = (words.index(owner), inner) if dot and owner in words else (0, key.removeprefix("provider."))
            own[at][name] = value
    providers = [known[word] for word in words]
    if "CUDAExecutionProvider" in providers and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()

    def prepare(model, outputs):
        session = ort.InferenceSession(str(model), options, providers=providers, provider_options=own)
        if session.get_providers()[: len(providers)] != providers:
            raise CannotRun(f"onnxruntime runs on {{session.get_providers()}} instead of {{providers}}")
        return lambda feeds: _run(ort, session, feeds, outputs)

    return prepare


def _run(ort, session, feeds, outputs):
    plain = {{o.name for o in session.get_outputs() if o.type.split("(")[-1].rstrip(")") in _NUMPY}}
    strange = [v for v in feeds.values() if isinstance(v, np.ndarray) and v.dtype.isbuiltin == 2]
    if plain.issuperset(outputs) and not strange:
        return dict(zip(outputs, session.run(outputs, feeds)))
    given = {{name: _value(ort, value) for name, value in feeds.items()}}
    return {{n: _array(v) for n, v in zip(outputs, session.run_with_ort_values(outputs, given))}}


_NUMPY = "float double float16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool string".split()


def _value(ort, array):
    """An OrtValue; types that numpy lacks go as raw bytes with their number in ONNX."""
    if array.dtype.isbuiltin != 2:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array) if array.ndim else array)
    import onnx

    number = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    packed = np.frombuffer(onnx.numpy_helper.from_array(array).raw_data, np.uint8)
    if array.dtype.itemsize > 1:
        raw = packed.view(f"u{{array.dtype.itemsize}}").reshape(array.shape)
    else:
        raw = np.zeros(array.shape, np.uint8)
        raw.reshape(-1)[: packed.size] = packed
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, number)


def _array(value):
    import ctypes

    import onnx

    kind = value.element_type()
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    if dtype.isbuiltin != 2:
        return value.numpy()
    narrow = {{"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2}}
    bits = narrow.get(dtype.name, 8 * dtype.itemsize)
    shape = list(value.shape())
    size = (int(np.prod(shape)) * bits + 7) // 8
    raw = ctypes.string_at(value.data_ptr(), size)
    return onnx.numpy_helper.to_array(onnx.TensorProto(data_type=kind, dims=shape, raw_data=raw))

'''

OPENVINO = '''
OPTIONS = {options}


def engine():
    """Makes the core; returns what compiles and runs."""
    try:
        import openvino
    except ImportError as error:
        raise CannotRun(f"openvino is not installed: {{error}}") from None
    core = openvino.Core()
    device = OPTIONS.get("device", "CPU")
    config = {{"INFERENCE_PRECISION_HINT": OPTIONS.get("precision", "f32")}}
    config.update((key.removeprefix("config."), value) for key, value in OPTIONS.items() if key.startswith("config."))

    def prepare(model, outputs):
        compiled = core.compile_model(core.read_model(model), device, config)

        def run(feeds):
            request = compiled.create_infer_request()
            for port in compiled.inputs:
                value = feeds[next(name for name in port.get_names() if name in feeds)]
                if value.dtype.isbuiltin == 2:
                    raise CannotRun(f"this script cannot give openvino a tensor of type {{value.dtype}}")
                request.set_tensor(port, openvino.Tensor(np.ascontiguousarray(value) if value.ndim else value))
            request.infer()
            ports = {{name: port for port in compiled.outputs for name in port.get_names()}}
            return {{name: request.get_tensor(ports[name]).data.copy() for name in outputs}}

        return run

    return prepare

'''

REFERENCE = '''
def engine():
    """Returns what runs onnx's reference evaluator."""
    try:
        from onnx.reference import ReferenceEvaluator
    except ImportError as error:
        raise CannotRun(f"onnx is not installed: {{error}}") from None

    def prepare(model, outputs):
        evaluator = ReferenceEvaluator(str(model))
        return lambda feeds: dict(zip(outputs, evaluator.run(outputs, feeds)))

    return prepare

'''

OWN = '''
FILE, CLASS = {file!r}, {name!r}
OPTIONS = {options}
FILES = {option_files}  # options that name files of this folder


def engine():
    """Makes the runner in FILE; returns what prepares and runs."""
    import importlib.util
    import inspect

    path = HERE / FILE
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location("bundled_runner", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["bundled_runner"] = module
        spec.loader.exec_module(module)
    except ImportError as error:
        raise CannotRun(f"{{FILE}} cannot be imported: {{error}}") from None
    kind = getattr(module, CLASS)
    given = {{**OPTIONS, **{{key: str(HERE / name) for key, name in FILES.items()}}}}
    parameters = inspect.signature(kind).parameters
    arguments = {{}}
    for key, text in given.items():
        parameter = parameters.get(key.replace("-", "_"))
        words = str(parameter.annotation) if parameter is not None else ""
        default = parameter.default if parameter is not None else None
        if "bool" in words or isinstance(default, bool):
            value = text.lower() in ("1", "true", "yes", "on")
        elif "Path" in words:
            value = Path(text)
        elif "float" in words or isinstance(default, float):
            value = float(text)
        elif "int" in words or isinstance(default, int):
            value = int(text)
        else:
            value = text
        arguments[key.replace("-", "_") if parameter is not None else key] = value
    runner = kind(**arguments)

    def prepare(model, outputs):
        runner.prepare(model, outputs)
        return runner.run

    return prepare

'''
