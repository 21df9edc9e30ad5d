// SPDX-License-Identifier: Apache-2.0

// Names for code that also imports modules whose types have the same names as generated ones.

/// The wire form of an expert's rows.
public typealias ExpertRowsMessage = ExpertRows
/// The wire form of the parameters of generation.
public typealias GenerationParametersMessage = GenerationParameters
/// The wire form of the routers' losses.
public typealias RouterLossesMessage = RouterLosses
