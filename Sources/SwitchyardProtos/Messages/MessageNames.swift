// SPDX-License-Identifier: Apache-2.0

// Other names of the generated types, for code that imports no module with types of these names, or one that has them.

/// The wire form of a stack.
public typealias Stack = WireStack
/// The wire form of a stack.
public typealias StackMessage = WireStack
/// The wire form of a type of numbers.
public typealias DType = WireDType
/// The wire form of a drop reason.
public typealias DropReason = WireDropReason
/// The wire form of a drop reason.
public typealias DropReasonMessage = WireDropReason
/// The wire form of a finish reason.
public typealias FinishReason = WireFinishReason
/// The wire form of a finish reason.
public typealias FinishReasonMessage = WireFinishReason
/// The wire form of an expert's rows.
public typealias ExpertRowsMessage = ExpertRows
/// The wire form of the parameters of generation.
public typealias GenerationParametersMessage = GenerationParameters
