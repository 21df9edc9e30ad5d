// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes

extension ModelError {
    /// Checks that everything a configuration asks for is implemented.
    static func requireSupport(for configuration: ModelConfiguration) throws(ModelError) {
        guard configuration.routerDType == .float32 else {
            throw ModelError(
                code: .unsupported,
                message: "config.json: router_dtype is \(configuration.routerDType), routers compute in float32 only;"
                    + " override router_dtype with float32"
            )
        }
    }
}
