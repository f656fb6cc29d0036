"""Every error of the router, as one tree; all of them are raised while loading or training, none while scoring.

RouterError
├── ArtifactError                 the artifact file cannot be used
│   ├── ArtifactNotFoundError     no such file
│   ├── ArtifactCorruptError      truncated, not an artifact, altered, or with parts of a wrong shape
│   ├── ArtifactVersionError      written in a format this release does not read
│   └── FeatureMismatchError      trained with other features than the ones that serve
│       └── EmbedderMismatchError trained with another embedder
├── KeptFeaturesError             features that were kept of past requests are damaged or of another release
├── EmbedderMissingError          another embedder was asked for and its library or model is not there
└── TrainingDataError             the tables for training are missing, incomplete or too small
"""

from __future__ import annotations


class RouterError(Exception):
    """Base of every error raised by this package."""


class ArtifactError(RouterError):
    """The artifact file cannot be used; the message names the file and what to do."""


class ArtifactNotFoundError(ArtifactError):
    """There is no file at the given path."""


class ArtifactCorruptError(ArtifactError):
    """The file is truncated, is not an artifact, fails its checksum, or has parts of a wrong shape."""


class ArtifactVersionError(ArtifactError):
    """The file's format is older or newer than the one this release reads."""


class FeatureMismatchError(ArtifactError):
    """The artifact was trained with other features than those computed here, so its scores would be wrong."""


class KeptFeaturesError(RouterError):
    """Features that were kept of past requests are damaged, or another release computed them."""


class EmbedderMismatchError(FeatureMismatchError):
    """The artifact was trained with another embedder; the message says which and how to load it."""


class EmbedderMissingError(RouterError):
    """An embedder was asked for by name, and its library or its model is not on this machine."""


class TrainingDataError(RouterError):
    """The tables for training or evaluation are missing, incomplete or too small."""
