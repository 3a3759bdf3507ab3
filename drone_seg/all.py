"""What lessons, README.md and the command line use: `from drone_seg.all import *`. The rest is reached by its module."""
# 0 ground
from drone_seg.fields import (
    DroneSegError, ClassTableError, MaskError, ImageError, FileError, DatasetError, ModelError, TrainError,
    PredictError, GeoError)
from drone_seg.classes import IGNORE, ClassTable
from drone_seg.photo.colors import distinct_colors
from drone_seg.files import install_line
# 1 photo
from drone_seg.photo.photo_file import image_size, read_image
from drone_seg.photo.images import read_mask, save_mask, save_image, resize_image, resize_mask
from drone_seg.photo.gsd import Gsd, gsd_from_height, photo_gsd
from drone_seg.photo.show import overlay, add_legend, side_by_side, sheet, compare
from drone_seg.scenes.scene import SCENE_CLASSES, draw_scene, draw_views, write_scenes
# 2 scores
from drone_seg.scores.confusion import Scores, Confusion, say_score
from drone_seg.scores.boundary import Boundary
from drone_seg.scores.calibration import Calibration
from drone_seg.scores.intervals import score_intervals, difference_intervals, say_difference
# 3 data
from drone_seg.data.records import list_datasets, common_classes
from drone_seg.data.pair import Pair
from drone_seg.data.datasets import DroneDataset, open_dataset
from drone_seg.data.join import download_dataset, join_datasets
from drone_seg.data.weights import frequency_weights
from drone_seg.data.write_classes import write_classes
from drone_seg.data.plain import write_plain
from drone_seg.data.places import Places, find_places, leakage, show_place_photos
from drone_seg.data.splits import Split
from drone_seg.data.augment import (
    flips, nadir, oblique, as_augmentation, check_augmentation, own_augmentation, BatchAugment)
from drone_seg.data.crops import Crops
from drone_seg.data.block import DroneDataLoaders, drone_block
# 4 models
from drone_seg.models.encoders import create_encoder
from drone_seg.models.unet import UNet, create_unet
from drone_seg.models.weights import load_encoder_weights, save_encoder_weights
from drone_seg.models.catalogue import list_models, networks
from drone_seg.models.about import read_about
from drone_seg.models.zoo import create_model
from drone_seg.models.bundle import Bundle, as_bundle, save_bundle, load_bundle
from drone_seg.models.hub import model_card, push_to_hub, from_hub
# 5 training
from drone_seg.train.losses import (
    seg_loss, CrossEntropy, Focal, OhemCrossEntropy, SoftDice, SoftJaccard, Tversky, Lovasz, BoundaryLoss)
from drone_seg.train.loss_for import labelled_only
from drone_seg.train.metrics import seg_metrics
from drone_seg.train.keep import KeepBest, EpochLog
from drone_seg.train.trackers import tracker
from drone_seg.train.learner import SegLearner, seg_learner, unet_learner
from drone_seg.train.stages import Stage
from drone_seg.train.callbacks import Average, StopAtNaN, StopEarly, KeepEpochs, Pictures
from drone_seg.train.checkpoint import Checkpoint
from drone_seg.train.fit import fit_stages, deterministic
from drone_seg.train.recipes import Recipe, recipe, recipes, list_recipes
from drone_seg.train.by_recipe import train_recipe, fit_budget, fit_time
from drone_seg.train.space import Search
from drone_seg.train.tune import tune
from drone_seg.train.distributed import together
# 6 prediction
from drone_seg.predict.tidy import remove_specks, smooth_ids
from drone_seg.predict.confidence import entropy
from drone_seg.predict.stream import Looker
from drone_seg.predict.predict import Prediction, Predictor
from drone_seg.predict.folder import predict_folder
from drone_seg.predict.cluster import predict_ray
from drone_seg.predict.video import predict_video
# 7 runs
from drone_seg.scores.coverage import RiskCoverage
from drone_seg.runs.confidence import risk_coverage
from drone_seg.runs.evaluate import save_scores
from drone_seg.runs.published import run_recipe, compare_recipes, compare_checkpoints
from drone_seg.runs.run import Run, open_run, list_runs
from drone_seg.runs.compare import compare_runs
from drone_seg.runs.curve import learning_curve
from drone_seg.runs.suspects import Suspects, find_suspects
from drone_seg.runs.to_label import next_photos
from drone_seg.runs.report import make_report
# 8 use
from drone_seg.use.ground import Preset, PRESETS, fitting_presets
from drone_seg.use.sheet import LandingZones
from drone_seg.use.landing import landing_zones
from drone_seg.use.map import predict_geotiff, GeoMap
from drone_seg.use.polygons import find_polygons, save_polygons
from drone_seg.use.cut import cut_geotiff
from drone_seg.use.labels import predicted_pairs, write_labels
from drone_seg.export.write import export_onnx, export_int8, export_openvino, export_deepness, export_program
from drone_seg.export.run_onnx import run_onnx, OnnxModel
