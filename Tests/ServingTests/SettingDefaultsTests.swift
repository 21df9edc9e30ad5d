// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
import ExpertPooling
import Foundation
import ServiceKit
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import ExpertServing
@testable import GatewayServing

@Suite("Defaults and ranges of settings")
struct SettingDefaultsTests {
    private static func settings(_ table: some SettingTable, flags: [String: String]) async throws -> Settings {
        let shared =
            ListenerSecuritySettings.table.definitions + ServiceSettings.table.definitions
        return try await Settings(known: table.definitions + shared, flags: flags, environment: [:], file: nil)
    }

    @Test("a gateway's defaults are its machines' defaults")
    func gateway() async throws {
        let settings = try await Self.settings(
            GatewaySettings.table,
            flags: ["model": "m", "pool": "pool-0=127.0.0.1:7401"]
        )
        let configuration = try GatewayConfiguration(settings)
        try configuration.validate()
        let plain = GatewayConfiguration(modelDirectory: "m", pools: configuration.cluster.pools)
        #expect(configuration.cluster.pools == [try PoolSpecification(parsing: "pool-0=127.0.0.1:7401")])
        #expect(configuration.engine.scheduler == SchedulerConfiguration())
        #expect(configuration.cluster.choice == ExpertPoolsConfiguration.defaults)
        #expect(configuration.limits == RequestLimits())
        #expect(configuration.host == plain.host && configuration.port == plain.port)
        #expect(configuration.engine.encodeTimePerStep == plain.engine.encodeTimePerStep)
        #expect(configuration.cluster.lookupInterval == plain.cluster.lookupInterval)
        #expect(configuration.readyTimeout == .seconds(60) && configuration.drainTimeout == .seconds(30))
        #expect(configuration.reflection)
        #expect(configuration.limits.maxDroppedFraction == 0.5)
        #expect(configuration.maxConnectionAge == .zero && plain.maxConnectionAge == .zero)
    }

    @Test(
        "a fraction is from 0 to 1, and no limit is accepted by its name alone",
        arguments: ["1.5", "-0.1", "nan", "half"]
    )
    func fraction(value: String) async throws {
        let settings = try await Self.settings(GatewaySettings.table, flags: ["max-dropped-fraction": value])
        let failure = #expect(throws: Settings.Failure.self) {
            try settings.value(GatewaySettings.table.maxDroppedFraction)
        }
        #expect(
            failure?.description.contains("--max-dropped-fraction is \"\(value)\"; it must be a number from 0 to 1")
                == true
        )
    }

    @Test("a gateway's settings reach the places that use them")
    func gatewayValues() async throws {
        let flags = [
            "model": "m", "pool": "pool-0=127.0.0.1:7401", "queue-limit": "7", "encoder-deadline-ms": "11",
            "decoder-deadline-multiple": "4", "shortest-deadline-ms": "3", "attempts": "2", "hedge-percent": "10",
            "audit-percent": "0.5", "audit-proofs": "7", "audit-memory-bytes": "1000",
            "layer-deadline": "decoder:3=500", "override": "d_ff=8;num_layers=2", "capacity": "factor:1.25",
            "overlap": "off", "dtype": "int8", "wire-dtype": "bfloat16", "startup-wait-seconds": "5",
            "max-dropped-fraction": "0.25", "max-connection-age-seconds": "3600",
            "max-connection-age-grace-seconds": "7",
        ]
        let configuration = try GatewayConfiguration(try await Self.settings(GatewaySettings.table, flags: flags))
        #expect(configuration.engine.scheduler.queueLimit == 7)
        let choice = configuration.cluster.choice
        #expect(choice.encoder.deadline == .milliseconds(11) && choice.encoder.adaptive == nil)
        #expect(choice.decoder.adaptive == AdaptiveDeadline(multiple: 4, shortest: .milliseconds(3)))
        #expect(choice.encoder.attempts == 2 && choice.decoder.attempts == 2)
        #expect(choice.hedgeFraction == 0.1)
        #expect(choice.auditFraction == 0.005 && choice.proofsToServe == 7)
        #expect(configuration.cluster.auditMemoryBytes == 1000)
        #expect(choice.layerDeadlines == [SparseLayer(stack: .decoder, block: 3): .milliseconds(500)])
        #expect(configuration.modelOverrides == ["d_ff": "8", "num_layers": "2"])
        #expect(configuration.engine.capacityPolicy == .factor(1.25))
        #expect(configuration.engine.overlap == .never)
        #expect(configuration.storage == .int8)
        #expect(configuration.cluster.wireType == .bfloat16)
        #expect(configuration.readyTimeout == .seconds(5))
        #expect(configuration.limits.maxDroppedFraction == 0.25)
        #expect(configuration.maxConnectionAge == .seconds(3_600) && configuration.maxConnectionAgeGrace == .seconds(7))
    }

    @Test("an expert host's defaults are its configuration's")
    func host() async throws {
        let settings = try await Self.settings(ExpertHostSettings.table, flags: ["shard": "a;b"])
        let configuration = try ExpertHostConfiguration(settings)
        let plain = ExpertHostConfiguration(shardDirectories: ["a", "b"])
        #expect(configuration.shardDirectories == ["a", "b"])
        #expect(configuration.host == plain.host && configuration.port == plain.port)
        #expect(configuration.queueLimit == 256 && plain.queueLimit == 256)
        #expect(configuration.maxRowsPerCall == 16_384 && configuration.batchRowLimit == 1024)
        #expect(configuration.batchWindow == .milliseconds(1) && configuration.drainTimeout == .seconds(20))
        #expect(configuration.storage == .checkpoint && configuration.zone == nil && configuration.reflection)
    }

    @Test(
        "a wrong setting is named with what it may be",
        arguments: [
            ("layer-deadline", "encoder:1", "STACK:BLOCK=MILLISECONDS"),
            ("layer-deadline", "middle:1=5", "STACK:BLOCK"),
            ("capacity", "factor:0", "checkpoint, unlimited, factor:NUMBER"), ("override", "=1", "KEY=VALUE"),
            ("decoder-deadline-multiple", "0.5", "0, or a number from 1 to 1000"),
            ("pool", "pool-0", "the flag --pool is \"pool-0\": "), ("listen", "7400", "host:port"),
            ("dtype", "int4", "checkpoint, float32, bfloat16 or int8"), ("overlap", "maybe", "auto, on or off"),
        ]
    )
    func wrong(key: String, value: String, part: String) async throws {
        var flags = ["model": "m", "pool": "pool-0=127.0.0.1:7401"]
        flags[key] = value
        let settings = try await Self.settings(GatewaySettings.table, flags: flags)
        let error = #expect(throws: Settings.Failure.self) { try GatewayConfiguration(settings) }
        #expect(
            error?.description.hasPrefix("the flag --\(key) is \"\(value)\"") == true,
            "\(error?.description ?? "")"
        )
        #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
    }

    @Test("a configuration built by a program must keep the settings' ranges")
    func ranges() throws {
        var host = ExpertHostConfiguration(shardDirectory: "shard")
        host.queueLimit = 65_537
        let error = #expect(throws: ExpertHostError.self) { try host.validate() }
        #expect(error?.message == "queue-limit is 65537; it must be a whole number from 1 to 65536")
        let pool = try PoolSpecification(parsing: "pool-0=127.0.0.1:7401")
        var gateway = GatewayConfiguration(modelDirectory: "m", pools: [pool])
        gateway.limits.maxNewTokens = 0
        let other = #expect(throws: GatewayError.self) { try gateway.validate() }
        #expect(other?.message == "max-new-tokens is 0; it must be a whole number from 1 to 65536")
    }
}
