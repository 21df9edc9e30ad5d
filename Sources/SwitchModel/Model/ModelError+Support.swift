// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import SwitchyardTypes

extension ModelError {
    /// Checks that everything a configuration asks for is implemented.
    ///
    /// - Parameter configuration: A checkpoint's configuration.
    /// - Throws: `ModelError` that names the key and its value.
    public static func requireSupport(for configuration: ModelConfiguration) throws(ModelError) {
        guard configuration.routerDType == .float32 else {
            throw ModelError(
                code: .unsupported,
                message: "config.json: router_dtype is \(configuration.routerDType), routers compute in float32 only;"
                    + " override router_dtype with float32"
            )
        }
    }
}
