"Maps of what is on the ground, from drone photographs"
from importlib.metadata import PackageNotFoundError, version

try: __version__ = version("drone_seg")
except PackageNotFoundError: __version__ = "0+unknown" # used from a folder, without being installed
