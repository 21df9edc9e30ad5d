// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import GatewayServing
import ServiceKit
import SwitchModel
import TensorKernels

/// How a gateway keeps its weights, and how rows travel to its expert hosts.
struct GatewayPrecisionOptions: ParsableArguments {
    /// The settings' keys.
    static let keys = ["dtype", "wire-dtype"]

    @Option(
        help: ArgumentHelp(
            "How weights are kept: checkpoint, float32, bfloat16, int8; routers' always float32. (default: checkpoint)",
            valueName: "type"
        )
    )
    var dtype: String?

    @Option(
        help: ArgumentHelp(
            "How token rows travel to the expert hosts and back: float32 or bfloat16. (default: float32)",
            valueName: "type"
        )
    )
    var wireDtype: String?

    /// The flags that were given.
    var flags: [String: String] {
        ["dtype": self.dtype, "wire-dtype": self.wireDtype].compactMapValues { $0 }
    }

    /// Puts the settings into a gateway's configuration.
    ///
    /// - Parameters:
    ///   - settings: Flags, environment and file.
    ///   - configuration: What to change.
    /// - Throws: `Settings.Failure` naming the setting that is wrong.
    static func apply(_ settings: Settings, to configuration: inout GatewayConfiguration) throws {
        configuration.storage = try settings.weightStorage()
        configuration.cluster.wireType = try settings.wireType()
    }
}

extension Settings {
    /// How weights are kept, from the setting `dtype`.
    ///
    /// - Returns: `checkpoint` where it is not given.
    /// - Throws: ``Settings/Failure`` for anything that is no such way.
    func weightStorage() throws -> WeightStorage {
        try PrecisionNames.storage(try self.string("dtype", default: "\(WeightStorage.checkpoint)"))
    }

    /// How token rows travel, from the setting `wire-dtype`.
    ///
    /// - Returns: `float32` where it is not given.
    /// - Throws: ``Settings/Failure`` for anything that is no such type.
    func wireType() throws -> RowType {
        try PrecisionNames.row(try self.string("wire-dtype", default: "\(RowType.float32)"))
    }
}
