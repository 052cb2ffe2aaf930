"""Writes and reads a `.tflite` file: a chain of convolutions in 32-bit floats, nothing else.

TensorFlow's converter weighs more than a gigabyte; the file is a table of tensors and operators
that the schema's own bindings write as well. tract computes these operators right (others, such as
MEAN, silently wrong), and the camera compares stored answers at every load.
"""

from __future__ import annotations

from dataclasses import dataclass

import flatbuffers
import numpy as np
import tflite

IDENTIFIER = b"TFL3"
"""Of the file format."""
VERSION = 3
"""Of its schema."""
PADDINGS = {"same": tflite.Padding.SAME, "valid": tflite.Padding.VALID}


@dataclass
class Convolution:
    """One operator: CONV_2D with its bias and, if asked for, ReLU6."""

    weight: np.ndarray
    """f32 `[outputs, rows, columns, inputs]`."""
    bias: np.ndarray
    """f32 `[outputs]`."""
    stride: int
    relu6: bool


def write(chain: list[Convolution], height: int, width: int, about: str) -> bytes:
    """The file of a network that takes `[1, height, width, inputs]` and runs `chain`, each padded
    as TensorFlow's SAME."""
    builder = flatbuffers.Builder(1 << 16)
    # The first buffer is empty by convention: tensors that hold no weights point at it.
    buffers: list[np.ndarray | None] = [None]
    tensors: list[tuple[str, tuple[int, ...], int]] = []

    def tensor(name: str, shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        if data is not None:
            buffers.append(np.ascontiguousarray(data, np.float32))
        tensors.append((name, shape, 0 if data is None else len(buffers) - 1))
        return len(tensors) - 1

    operators = []
    here = tensor("frames", (1, height, width, chain[0].weight.shape[3]))
    first = here
    for i, step in enumerate(chain):
        weight = tensor(f"weight_{i}", step.weight.shape, step.weight)
        bias = tensor(f"bias_{i}", step.bias.shape, step.bias)
        height, width = -(-height // step.stride), -(-width // step.stride)
        there = tensor(f"out_{i}", (1, height, width, len(step.bias)))
        operators.append(_operator(builder, (here, weight, bias), there, step))
        here = there

    subgraph = _subgraph(builder, tensors, operators, first, here)
    code = _operator_code(builder)
    written = [_buffer(builder, data) for data in buffers]
    tflite.ModelStartBuffersVector(builder, len(written))
    all_buffers = _vector(builder, written)
    tflite.ModelStartSubgraphsVector(builder, 1)
    subgraphs = _vector(builder, [subgraph])
    tflite.ModelStartOperatorCodesVector(builder, 1)
    codes = _vector(builder, [code])
    description = builder.CreateString(about)
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, VERSION)
    tflite.ModelAddOperatorCodes(builder, codes)
    tflite.ModelAddSubgraphs(builder, subgraphs)
    tflite.ModelAddDescription(builder, description)
    tflite.ModelAddBuffers(builder, all_buffers)
    builder.Finish(tflite.ModelEnd(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def read(file: bytes) -> list[Convolution]:
    """The chain in a file that [`write`] has written."""
    model = tflite.Model.GetRootAs(file)
    graph = model.Subgraphs(0)

    def weights(number: int) -> np.ndarray:
        tensor = graph.Tensors(number)
        data = model.Buffers(tensor.Buffer()).DataAsNumpy()
        return data.view(np.float32).reshape(tensor.ShapeAsNumpy()).copy()

    chain = []
    for i in range(graph.OperatorsLength()):
        operator, options = graph.Operators(i), tflite.Conv2DOptions()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        relu6 = options.FusedActivationFunction() == tflite.ActivationFunctionType.RELU6
        weight, bias = weights(operator.Inputs(1)), weights(operator.Inputs(2))
        chain.append(Convolution(weight, bias, options.StrideW(), relu6))
    return chain


def _vector(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    """Ends a vector of tables that was begun; flatbuffers are written back to front."""
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _integers(builder: flatbuffers.Builder, values: tuple[int, ...]) -> int:
    return builder.CreateNumpyVector(np.array(values, np.int32))


def _operator(
    builder: flatbuffers.Builder, inputs: tuple[int, ...], output: int, step: Convolution
) -> int:
    relu6, none = tflite.ActivationFunctionType.RELU6, tflite.ActivationFunctionType.NONE
    tflite.Conv2DOptionsStart(builder)
    tflite.Conv2DOptionsAddPadding(builder, PADDINGS["same"])
    tflite.Conv2DOptionsAddStrideW(builder, step.stride)
    tflite.Conv2DOptionsAddStrideH(builder, step.stride)
    tflite.Conv2DOptionsAddFusedActivationFunction(builder, relu6 if step.relu6 else none)
    options = tflite.Conv2DOptionsEnd(builder)
    takes, gives = _integers(builder, inputs), _integers(builder, (output,))
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, 0)
    tflite.OperatorAddInputs(builder, takes)
    tflite.OperatorAddOutputs(builder, gives)
    tflite.OperatorAddBuiltinOptionsType(builder, tflite.BuiltinOptions.Conv2DOptions)
    tflite.OperatorAddBuiltinOptions(builder, options)
    return tflite.OperatorEnd(builder)


def _subgraph(
    builder: flatbuffers.Builder,
    tensors: list[tuple[str, tuple[int, ...], int]],
    operators: list[int],
    first: int,
    last: int,
) -> int:
    written = []
    for name, shape, buffer in tensors:
        label, sides = builder.CreateString(name), _integers(builder, shape)
        tflite.TensorStart(builder)
        tflite.TensorAddShape(builder, sides)
        tflite.TensorAddType(builder, tflite.TensorType.FLOAT32)
        tflite.TensorAddBuffer(builder, buffer)
        tflite.TensorAddName(builder, label)
        written.append(tflite.TensorEnd(builder))
    tflite.SubGraphStartTensorsVector(builder, len(written))
    all_tensors = _vector(builder, written)
    tflite.SubGraphStartOperatorsVector(builder, len(operators))
    all_operators = _vector(builder, operators)
    takes, gives = _integers(builder, (first,)), _integers(builder, (last,))
    name = builder.CreateString("main")
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, all_tensors)
    tflite.SubGraphAddInputs(builder, takes)
    tflite.SubGraphAddOutputs(builder, gives)
    tflite.SubGraphAddOperators(builder, all_operators)
    tflite.SubGraphAddName(builder, name)
    return tflite.SubGraphEnd(builder)


def _operator_code(builder: flatbuffers.Builder) -> int:
    code = tflite.BuiltinOperator.CONV_2D
    tflite.OperatorCodeStart(builder)
    # Both fields: older readers know only the first.
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, code)
    tflite.OperatorCodeAddVersion(builder, 1)
    tflite.OperatorCodeAddBuiltinCode(builder, code)
    return tflite.OperatorCodeEnd(builder)


def _buffer(builder: flatbuffers.Builder, data: np.ndarray | None) -> int:
    if data is None:
        tflite.BufferStart(builder)
        return tflite.BufferEnd(builder)
    raw = data.reshape(-1).view(np.uint8)
    # Weights are read in place: they begin at a multiple of 16 bytes.
    builder.StartVector(1, len(raw), 16)
    builder.head -= len(raw)
    builder.Bytes[builder.head : builder.head + len(raw)] = raw.tobytes()
    vector = builder.EndVector()
    tflite.BufferStart(builder)
    tflite.BufferAddData(builder, vector)
    return tflite.BufferEnd(builder)
