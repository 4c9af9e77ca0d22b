"""Names of Python's standard library and of NumPy that ordinary pickles hold, and that do nothing but make data."""

from typing import Final

NAMES: Final[dict[str, str]] = {
    "builtins": (
        "ArithmeticError AttributeError BaseException Ellipsis Exception False IndexError KeyError LookupError None NotImplemented "
        "OSError RuntimeError StopIteration True TypeError ValueError abs bool bytearray bytes complex dict divmod enumerate float "
        "frozenset hash int len list long max min object pow property range reversed round set slice sorted staticmethod str sum "
        "super tuple type unicode xrange zip"
    ),
    "__future__": "absolute_import annotations division print_function unicode_literals",
    "_codecs": "encode",
    "_collections": "OrderedDict defaultdict deque",
    "abc": "ABC ABCMeta",
    "argparse": "Namespace",
    "array": "_array_reconstructor array",
    "collections": "ChainMap Counter OrderedDict UserDict UserList UserString defaultdict deque namedtuple",
    "collections.abc": (
        "AsyncGenerator AsyncIterable AsyncIterator Awaitable Buffer ByteString Callable Collection Container Coroutine Generator Hashable "
        "ItemsView Iterable Iterator KeysView Mapping MappingView MutableMapping MutableSequence MutableSet Reversible Sequence Set Sized "
        "ValuesView"
    ),
    "copyreg": "__newobj__ __newobj_ex__ _reconstructor",
    "ordereddict": "OrderedDict",
    "datetime": "date datetime time timedelta timezone tzinfo UTC",
    "decimal": "Decimal",
    "enum": "Enum EnumMeta EnumType Flag IntEnum IntFlag StrEnum",
    "fractions": "Fraction",
    "functools": "partial",
    "ipaddress": "IPv4Address IPv6Address",
    "io": "BytesIO StringIO",
    "_io": "BytesIO StringIO",
    "itertools": "chain count cycle islice product repeat",
    "logging": "Logger NullHandler RootLogger getLogger",
    "math": "ceil cos exp floor log log10 log1p log2 sin sqrt tanh",
    "numbers": "Integral Number Real",
    "operator": "add and_ eq ge getitem gt le lt matmul mod mul ne neg not_ or_ pos pow sub truediv floordiv",
    "_operator": "add and_ eq ge getitem gt le lt matmul mod mul ne neg not_ or_ pos pow sub truediv floordiv",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "pathlib._local": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "random": "Random",
    "re": "Pattern _compile",
    "string": "Template",
    "struct": "Struct",
    "_struct": "Struct",
    "time": "struct_time",
    "types": "NoneType SimpleNamespace",
    "typing": "Any Callable ClassVar Dict Generic List NamedTuple Optional Sequence Set Tuple Type TypeVar Union",
    "uuid": "UUID SafeUUID",
    "weakref": "WeakKeyDictionary WeakSet WeakValueDictionary",
    "zoneinfo": "ZoneInfo ZoneInfo._unpickle",
    "numpy": (
        "array asarray bool bool_ bytes_ cdouble clongdouble complex128 complex64 csingle datetime64 double dtype float16 float32 "
        "float64 float_ float96 float128 floating generic half int0 int16 int32 int64 int8 int_ intc integer intp longdouble longlong "
        "longfloat matrix ndarray number object_ record recarray short signedinteger single str_ string_ timedelta64 ubyte uint uint0 "
        "uint16 uint32 uint64 uint8 uintc uintp ulonglong unicode_ unsignedinteger ushort void inexact complexfloating bytes0 str0 "
        "abs absolute add arccos arcsin arctan cbrt ceil clip cos cosh divide exp exp2 expm1 floor identity isfinite isinf isnan log "
        "log10 log1p log2 logaddexp max maximum mean median min minimum multiply nan_to_num negative ones power prod ravel reciprocal "
        "reshape round sign sin sinh sqrt square squeeze std subtract sum tan tanh transpose true_divide var vectorize zeros argmax argmin "
        "poly1d"
    ),
    "numpy.char": "chararray",
    "numpy.core.multiarray": "_reconstruct array scalar",
    "numpy.core._internal": "_convert_to_stringdtype_kwargs _reconstruct",
    "numpy.core.numeric": "_frombuffer",
    "numpy.core.records": "recarray record",
    "numpy.rec": "recarray record",
    "numpy.core.defchararray": "chararray",
    "numpy.core._multiarray_umath": "_reconstruct scalar",
    "numpy.dtypes": (
        "BoolDType ByteDType BytesDType CLongDoubleDType Complex128DType Complex64DType DateTime64DType Float16DType Float32DType "
        "Float64DType Int16DType Int32DType Int64DType Int8DType IntDType LongDType LongDoubleDType LongLongDType ObjectDType ShortDType "
        "StrDType StringDType TimeDelta64DType UByteDType UInt16DType UInt32DType UInt64DType UInt8DType UIntDType ULongDType "
        "ULongLongDType UShortDType VoidDType"
    ),
    "numpy.core._dtype": "_Int64DType",
    "numpy.ma": "MaskedArray masked_array mvoid",
    "numpy.ma.core": "MaskedArray MaskedConstant _mareconstruct mvoid",
    "numpy.matrixlib.defmatrix": "matrix",
    "numpy.polynomial.polynomial": "Polynomial",
    "numpy.polynomial.chebyshev": "Chebyshev",
    "numpy.lib.polynomial": "poly1d",
    "numpy.lib.index_tricks": "RClass CClass",
    "numpy.random": "Generator RandomState __RandomState_ctor __generator_ctor __bit_generator_ctor",
    "numpy.random._generator": "Generator",
    "numpy.random.mtrand": "RandomState _rand __RandomState_ctor",
    "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64 PCG64DXSM",
    "numpy.random._philox": "Philox",
    "numpy.random._sfc64": "SFC64",
    "numpy.random.bit_generator": "SeedSequence SeedlessSeedSequence __pyx_unpickle_SeedSequence",
}
"""Those of NumPy with `numpy.core` for `numpy._core` too: `severity` knows both as one."""
