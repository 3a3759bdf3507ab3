"Everything public, storey by storey: `from drone_seg.all import *`"
# 0 ground
from drone_seg.classes import *
from drone_seg.scenes import *
from drone_seg.windows import *
from drone_seg.confusion import *
from drone_seg.draw import *
from drone_seg.files import *
from drone_seg.progress import *
from drone_seg.boundary import *
from drone_seg.tidy import *
from drone_seg.calibration import *
from drone_seg.records import *
# 1 data
from drone_seg.data.images import *
from drone_seg.data.datasets import *
from drone_seg.data.overlap import *
from drone_seg.data.splits import *
from drone_seg.data.augment import *
from drone_seg.data.cache import *
from drone_seg.data.crops import *
from drone_seg.data.block import *
from drone_seg.data.gsd import *
# 2 models
from drone_seg.models.encoders import *
from drone_seg.models.unet import *
from drone_seg.models.weights import *
from drone_seg.models.catalogue import *
from drone_seg.models.about import *
from drone_seg.models.zoo import *
from drone_seg.models.bundle import *
from drone_seg.models.memory import *
# 3 training
from drone_seg.train.losses import *
from drone_seg.train.metrics import *
from drone_seg.train.learner import *
from drone_seg.train.callbacks import *
from drone_seg.train.budget import *
from drone_seg.train.recipes import *
from drone_seg.train.by_recipe import *
from drone_seg.train.tune import *
from drone_seg.train.distributed import *
# 4 prediction
from drone_seg.predict.tiled import *
from drone_seg.predict.confidence import *
from drone_seg.predict.bulk import *
# 5 reading
from drone_seg.report.evaluate import *
from drone_seg.report.recipes import *
# 6 use
from drone_seg.landing import *
from drone_seg.geo import *
from drone_seg.export import *
from drone_seg.run_onnx import *
