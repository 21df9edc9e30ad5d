// SPDX-License-Identifier: Apache-2.0

internal import Foundation
package import Logging

/// Settings that every service has.
public struct ServiceSettings: SettingTable {
    /// The settings.
    package static let table = ServiceSettings()

    package let config = Setting.text(
        "config",
        placeholder: "file",
        "A JSON file with settings; flags and environment variables override it."
    )
    package let logLevel = Setting.choice(
        "log-level",
        of: Logger.Level.allCases,
        default: .info,
        name: \.rawValue,
        placeholder: "level",
        "Lowest level that is logged."
    )
    package let logFormat = Setting.choice(
        "log-format",
        of: LineLogHandler.Format.allCases,
        default: .text,
        name: \.rawValue,
        placeholder: "format",
        "Format of log lines; json writes one object per line."
    )
    package let noReflection = Setting.toggle(
        "no-reflection",
        "Do not describe services and messages to clients through gRPC server reflection."
    )
}

/// Settings of a service's admin port.
public struct AdminSettings: SettingTable {
    package let adminListen: Setting<ListenAddress?>
    package let metricsExpertSeries = Setting.whole(
        "metrics-expert-series",
        in: 0...1_000_000,
        default: 2000,
        placeholder: "count",
        see: "Tokens by expert",
        "Limit of series for tokens by expert; above it neighbouring experts share a series; 0 turns them off."
    )

    /// Makes the settings of one service.
    ///
    /// - Parameters:
    ///   - address: Where its admin port listens by default.
    ///   - defaultInWords: The default in words, if the settings are shown for several services.
    package init(listen address: String, defaultInWords: String? = nil) {
        self.adminListen = .parsed(
            "admin-listen",
            default: try? ListenAddress(parsing: address),
            written: address,
            defaultInWords: defaultInWords,
            allowed: "HOST:PORT or off",
            range: "HOST:PORT or off",
            placeholder: "host:port",
            "Address of metrics and probes over HTTP; off disables them."
        ) { text in
            guard text != "off", !text.isEmpty else { return .some(nil) }
            let address = try ListenAddress(parsing: text)
            guard !address.isUnix else {
                throw Settings.Failure(
                    "the address \"\(text)\" must have a port: probes and scrapers reach no Unix socket"
                )
            }
            return address
        }
    }
}

extension Setting where Value == ListenAddress {
    /// Where a service listens.
    ///
    /// - Parameter address: The default.
    /// - Returns: The setting `listen`.
    package static func listen(default address: ListenAddress) -> Setting {
        .parsed(
            "listen",
            default: address,
            written: "\(address)",
            allowed: "HOST:PORT or unix:/PATH",
            range: "HOST:PORT or unix:/PATH",
            placeholder: "host:port",
            "Address to listen on; * is every address of the machine, port 0 lets the system choose, and unix:/path is a socket of this machine."
        ) { try ListenAddress(parsing: $0) }
    }
}

extension Setting where Value == Int {
    /// How many bytes of requests a service holds before it works on them.
    ///
    /// - Parameters:
    ///   - least: The smallest value, which several of the largest messages fit into.
    ///   - defaultValue: The value if it is not set.
    /// - Returns: The setting `receive-budget-bytes`.
    package static func receiveBudget(atLeast least: Int, default defaultValue: Int) -> Setting {
        .whole(
            "receive-budget-bytes",
            in: least...(1 << 40),
            default: defaultValue,
            placeholder: "bytes",
            "Bytes of requests that have arrived in part, or wait to be read; half of them may be one connection's. Beyond it, "
                + "the call that has held most for longest ends with RESOURCE_EXHAUSTED."
        )
    }
}

/// The settings of compute threads, which both services have.
public struct ComputeSettings: SettingTable {
    package let threads = Setting.whole(
        "threads",
        in: 1...1024,
        default: max(1, ProcessInfo.processInfo.activeProcessorCount),
        defaultInWords: "all processors",
        placeholder: "count",
        "Compute threads."
    )
    package let pinThreads = Setting.toggle(
        "pin-threads",
        "Pin each compute thread to its own processor, for machines that do nothing else."
    )
    package let spin = Setting.time(
        "spin-us",
        .microseconds,
        in: 0...100_000,
        default: 100,
        "How long an idle compute thread looks for work before it sleeps; 0 lets it sleep at once."
    )

    package init() {}
}
