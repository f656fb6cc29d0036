"""Every error of the engine; each carries the HTTP status and code with which the server answers.

EngineError
├── ModelError            the model cannot be used: ends `serve`, never reaches a client
│   ├── ModelNotFound     no such file, known name or hub id, or nothing could be fetched
│   ├── CorruptModelFile  truncated or malformed GGUF / safetensors / JSON
│   ├── WrongShape        a tensor is missing, unexpected or of the wrong shape
│   ├── UnknownArchitecture
│   ├── CannotQuantize    the model's shape or values do not fit the format asked for
│   ├── CannotPrune       the layers or the text asked for do not suit
│   ├── ModelTooLarge     the weights are larger than the free memory
│   ├── CacheDoesNotFit   the cache asked for is larger than the free memory
│   ├── DraftModelUnfit   the draft model or drafter does not go with the model
│   ├── BadTrainingData   prompts or kept outputs that a drafter cannot be trained on
│   ├── NoSuchDevice      the device asked for is not there, or torch was built without it
│   └── EnergyUnreadable  the energy counter asked for cannot be read
└── RequestError          the request is refused with a reply
    ├── InvalidRequest    400, `param` names the field
    │   └── ContextTooLong 400 context_length_exceeded
    ├── UnknownModel      404
    ├── Unauthorized      401
    ├── BodyTooLarge      413
    ├── QueueFull         429 with Retry-After
    ├── NotReady          503 while the model loads or the server drains
    ├── FormFailed        400, the answer's grammar exceeded its limits while it was written
    ├── DeadlineExceeded  504, the request's own deadline passed before its end
    └── StepFailed        500, the step that carried this request raised; others go on
        └── StepOutOfMemory 503 with Retry-After, it raised because memory was short
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of all errors this package raises on purpose."""

    status: int = 500
    code: str = "engine_error"
    type: str = "server_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, object]:
        """The reply body in the form the OpenAI SDKs parse."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class ModelError(EngineError):
    """The model cannot be found, read or built."""

    code = "model_error"


class ModelNotFound(ModelError):
    """No file, known name or hub id gives this model."""

    code = "weights_not_found"


class CorruptModelFile(ModelError):
    """A model file is truncated or malformed."""

    code = "corrupt_model_file"


class WrongShape(ModelError):
    """A tensor is missing, unexpected, or shaped otherwise than the configuration says."""

    code = "wrong_tensor_shape"


class UnknownArchitecture(ModelError):
    """The model's architecture is none of those the decoder knows."""

    code = "unknown_architecture"


class NoSuchDevice(ModelError):
    """Torch cannot use the device that was asked for."""

    code = "no_such_device"


class CannotQuantize(ModelError):
    """The weights do not fit the number format asked for, or are quantised already."""

    code = "cannot_quantize"


class CannotPrune(ModelError):
    """So many layers cannot be dropped, the model is quantised, or the text is too short to measure on."""

    code = "cannot_prune"


class ModelTooLarge(ModelError):
    """The weights do not fit the free memory; said before they are read, with the format that would fit."""

    code = "model_too_large"


class CacheDoesNotFit(ModelError):
    """The cache asked for is larger than the memory that is free, or smaller than one block."""

    code = "cache_does_not_fit"


class BadTrainingData(ModelError):
    """Prompts or kept outputs that a drafter cannot be trained on."""

    code = "bad_training_data"


class DraftModelUnfit(ModelError):
    """A draft model or drafter was asked for that does not go with the model."""

    code = "draft_model_unfit"


class EnergyUnreadable(ModelError):
    """The energy counter that was asked for is not on this machine, or not for this user."""

    code = "energy_unreadable"


class RequestError(EngineError):
    """The request is refused; the engine keeps serving the others."""

    status = 400
    code = "invalid_request"
    type = "invalid_request_error"


class InvalidRequest(RequestError):
    """A field of the request has a value that cannot be served."""

    code = "invalid_value"


class InvalidJson(RequestError):
    """The body is not a JSON object."""

    code = "invalid_json"


class UnsupportedParameter(RequestError):
    """A known OpenAI field asks for something this engine does not do; ignoring it would mislead the caller."""

    code = "unsupported_parameter"


class ContextTooLong(InvalidRequest):
    """Prompt and requested completion do not fit the context."""

    code = "context_length_exceeded"


class UnknownModel(RequestError):
    """The model asked for is not the one this server holds."""

    status = 404
    code = "model_not_found"


class UnknownRoute(RequestError):
    """No such path, or not with this method."""

    status = 404
    code = "not_found"


class Unauthorized(RequestError):
    """The API key is missing or wrong."""

    status = 401
    code = "invalid_api_key"
    type = "authentication_error"


class BodyTooLarge(RequestError):
    """The body exceeds the limit."""

    status = 413
    code = "body_too_large"


class QueueFull(RequestError):
    """Too many requests are waiting; the reply says when to come again."""

    status = 429
    code = "queue_full"
    type = "rate_limit_error"


class NotReady(RequestError):
    """The model is still loading, or the server is draining."""

    status = 503
    code = "not_ready"
    type = "server_error"


class DeadlineExceeded(RequestError):
    """The caller's own deadline passed before the answer was complete; its blocks are free again."""

    status = 504
    code = "deadline_exceeded"
    type = "timeout_error"


class FormFailed(RequestError):
    """The form the answer must have exceeded the limits of what is followed; its blocks are free again."""

    code = "form_failed"


class StepFailed(EngineError):
    """The engine step that carried this request raised; its blocks are free again."""

    code = "engine_step_failed"


class StepOutOfMemory(StepFailed):
    """The engine step that carried this request ran out of memory; its blocks are free again."""

    status = 503
    code = "out_of_memory"
