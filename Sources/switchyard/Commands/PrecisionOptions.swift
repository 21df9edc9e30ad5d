// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import GatewayServing
import ServiceKit
import SwitchModel
import SwitchyardTypes
import TensorKernels

/// How a gateway keeps its weights, and how rows travel to its expert hosts.
struct GatewayPrecisionOptions: ParsableArguments {
    @Option(GatewaySettings.table.dtype) var dtype: String?

    @Option(GatewaySettings.table.wireDtype) var wireDtype: String?
}
