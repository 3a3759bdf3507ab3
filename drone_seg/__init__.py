"Maps of what is on the ground, from drone photographs"
import warnings
from importlib.metadata import PackageNotFoundError, version

try: __version__ = version("drone_seg")
except PackageNotFoundError: __version__ = "0+unknown" # used from a folder, without being installed

# fastai.layers still scripts a function at import, of which newer torch warns everybody who imports it
warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated", category=FutureWarning)
