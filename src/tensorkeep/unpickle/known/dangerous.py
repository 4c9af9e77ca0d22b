"""Names that load, fetch or run something, and packages that hold nothing else. Of Python's standard library all is dangerous that is
not listed in `python.py`: here stand only its modules of other releases.
"""

from typing import Final

GONE: Final = (
    "BaseHTTPServer CGIHTTPServer ConfigParser Cookie Dialog DocXMLRPCServer FileDialog HTMLParser Queue ScrolledText "
    "SimpleDialog SimpleHTTPServer SimpleXMLRPCServer SocketServer StringIO Tix Tkconstants Tkdnd Tkinter UserDict UserList "
    "UserString __builtin__ __main__.__builtins__ _abcoll _aix_support _android_support _apple_support _colorize _hmac "
    "_interpchannels _interpqueues _interpreters _ios_support _osx_support _pyrepl _remote_debugging _sysconfig _types "
    "_winreg _xxinterpchannels _xxsubinterpreters _zstd aifc annotationlib anydbm asynchat asyncore audioop binhex cPickle "
    "cStringIO cgi cgitb chunk commands compiler compression concurrent cookielib copy_reg crypt dbhash distutils dl "
    "dumbdbm dummy_thread exceptions formatter fpformat future_builtins gdbm hotshot htmlentitydefs htmllib httplib ihooks "
    "imageop imghdr imp imputil lib2to3 macos macpath mailcap markupbase md5 mhlib mimetools mimify msilib multifile mutex "
    "nis nntplib os2 ossaudiodev parser pipes popen2 posixfile repr rexec rfc822 robotparser sets sha smtpd sndhdr spwd "
    "statvfs string.templatelib sunau symbol telnetlib test test_support thread tkColorChooser tkCommonDialog tkFileDialog "
    "tkFont tkMessageBox tkSimpleDialog toaiff ttk urllib2 urlparse uu whichdb xdrlib xmllib xmlrpclib"
)
"""Modules of the standard library of other releases, Python 2 among them."""

PACKAGES: Final = (
    "_pytest aiofiles aiohttp asyncssh billiard boto boto3 botocore bpython bs4 cffi cloudpickle code_saver comtypes cppyy "
    "cython dill django docker execnet fabric flask fsspec gevent git hickle httpcore httpx huggingface_hub hydra invoke "
    "ipykernel IPython jinja2 jpype js2py jsonpickle jupyter_client klepto kubernetes llvmlite loky mako mechanize "
    "mitmproxy mpire nose numexpr paramiko parsl pathos pexpect pip pkg_resources plumbum ppft psutil ptpython pwn "
    "py_compile pyautogui pycparser pydevd pyperclip pytest pywin32 ray requests rpyc s3fs scapy selenium setuptools sh "
    "smart_open sqlalchemy srsly streamlit subprocess32 twisted urllib3 webdriver_manager websocket websockets werkzeug "
    "wheel win32api win32com wmi xonsh yaml zmq"
)
"""Packages of others of which no model needs a name, and whose names fetch, load or run something."""

REACHING: Final = (
    "eval exec execfile compile __import__ import_module system popen spawn getattr setattr delattr globals locals vars "
    "open input breakpoint __builtins__ __globals__ __subclasses__ __dict__ __class__ __bases__ __mro__ __base__ __code__ "
    "__loader__ __spec__ __getattribute__ __closure__ os sys subprocess builtins importlib shutil socket ctypes pickle "
    "marshal loads load_library runstring run_command myeval from_pretrained import_string load_from_checkpoint "
    "load_learner load_pickle render_template_string unsafe_load"
)
"""Names that reach other names, or run a text, in whatever module they stand."""

LOADING: Final = "load load_model save dump tofile run call start fromfile read_pickle to_pickle"
"""Methods that read, write or run something, on whatever object."""

NAMES: Final[dict[str, str]] = {
    "gensim.utils": "unpickle SaveLoad",
    "joblib": "load dump Memory Parallel delayed",
    "joblib.numpy_pickle": "load load_temporary_memmap _unpickle",
    "keras.models": "load_model model_from_json model_from_yaml",
    "keras.saving": "load_model deserialize_keras_object",
    "keras.src.saving.saving_api": "*",
    "keras.src.saving.saving_lib": "*",
    "keras.src.utils.file_utils": "*",
    "keras.utils": "get_file",
    "mlflow.pyfunc": "load_model",
    "nltk.app.wordnet_app": "*",
    "nltk.data": "*",
    "nltk.downloader": "*",
    "nltk.internals": "*",
    "numpy": (
        "DataSource deprecate disp eval fromfile fromregex genfromtxt load loads loadtxt os save savetxt savez savez_compressed "
        "source sys test"
    ),
    "numpy.ctypeslib": "*",
    "numpy.distutils": "*",
    "numpy.f2py": "*",
    "numpy.lib._datasource": "*",
    "numpy.lib._npyio_impl": "*",
    "numpy.lib._utils_impl": "*",
    "numpy.lib.format": "*",
    "numpy.lib.npyio": "*",
    "numpy.lib.utils": "*",
    "numpy.testing": "*",
    "paddle": "load jit.load",
    "paddle.utils": "*",
    "pandas": "eval read_csv read_excel read_hdf read_html read_json read_parquet read_pickle read_sql read_xml",
    "pandas.compat.pickle_compat": "*",
    "pandas.core.computation": "*",
    "pandas.io": "*",
    "scipy.io": "*",
    "scipy.weave": "*",
    "sklearn.datasets": "*",
    "sklearn.externals.joblib": "load Parallel Memory",
    "sklearn.utils.testing": "*",
    "skops.io": "*",
    "spacy": "load",
    "sympy": "sympify lambdify parse_expr",
    "sympy.parsing": "*",
    "tensorflow": "load_library load_op_library py_function numpy_function",
    "tensorflow.io": "*",
    "tensorflow.keras.models": "load_model",
    "tensorflow.python.framework.load_library": "*",
    "tensorflow.python.ops": "*",
    "tensorflow.saved_model": "load",
    "torch": "compile hub jit load ops package save serialization os sys",
    "torch._dynamo": "*",
    "torch._export": "*",
    "torch._functorch": "*",
    "torch._inductor": "*",
    "torch._numpy": "*",
    "torch._utils": "_import_dotted_name _element_size",
    "torch._utils_internal": "*",
    "torch.ao.quantization.pt2e": "*",
    "torch.classes": "*",
    "torch.cuda.jiterator": "*",
    "torch.distributed.elastic": "*",
    "torch.distributed.launch": "*",
    "torch.distributed.launcher": "*",
    "torch.distributed.nn.jit": "*",
    "torch.distributed.rpc": "*",
    "torch.distributed.run": "*",
    "torch.export": "*",
    "torch.fx.experimental": "*",
    "torch.fx.graph_module": "*",
    "torch.fx.passes": "*",
    "torch.hub": "*",
    "torch.jit": "*",
    "torch.monitor": "*",
    "torch.multiprocessing": "*",
    "torch.onnx.utils": "*",
    "torch.ops": "*",
    "torch.package": "*",
    "torch.profiler": "*",
    "torch.serialization": "*",
    "torch.testing": "*",
    "torch.utils._config_module": "*",
    "torch.utils.benchmark": "*",
    "torch.utils.bottleneck": "*",
    "torch.utils.collect_env": "*",
    "torch.utils.cpp_extension": "*",
    "torch.utils.data.datapipes": "*",
    "torch.utils.file_baton": "*",
    "torch.utils.hipify": "*",
    "torch.utils.mobile_optimizer": "*",
    "torch.utils.model_dump": "*",
    "torch.utils.show_pickle": "*",
    "torch.utils.tensorboard": "*",
    "torchvision.datasets": "*",
    "torchvision.io": "*",
    "transformers": "pipeline",
    "transformers.dynamic_module_utils": "*",
    "transformers.pipelines": "pipeline",
    "transformers.utils.hub": "*",
    "transformers.utils.import_utils": "*",
}
"""Names of libraries of models: `*` for every one that stands in that module or below it."""
