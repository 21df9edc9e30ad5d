// SPDX-License-Identifier: Apache-2.0

import Figures
import SwitchyardTypes

/// The picture at the head of docs/deployment.md: which process talks to which, and how.
enum DeploymentDiagram {
    /// The drawing.
    static var diagram: SVGDiagram {
        var diagram = SVGDiagram(
            title:
                "Clients reach gateways with TLS and tokens. Gateways reach the hosts of every pool with mutual TLS. "
                + "Prometheus reads admin ports. Hosts fetch their shards from a store.",
            width: 980,
            height: 480
        )
        diagram.box(.init(20, 70, 104, 244), "clients", ["any gRPC", "client"], colour: 4)
        diagram.group(.init(206, 24, 210, 322), "gateways")
        for top in [60.0, 200] {
            diagram.box(
                .init(228, top, 166, 118),
                "gateway",
                ["7400 for clients", "7410 for probes", "and metrics"],
                colour: 0
            )
        }
        diagram.group(.init(548, 24, 412, 346), "expert hosts")
        for (index, top) in [52.0, 208].enumerated() {
            diagram.group(
                .init(564, top, 380, 146),
                "pool-\(index): experts \(4 * index) to \(4 * index + 3) of every sparse layer"
            )
            for column in 0..<3 {
                diagram.box(
                    .init(580 + 120 * Double(column), top + 36, 108, 94),
                    "expert host",
                    column < 2 ? ["7401 for calls", "7411 for probes", "and metrics"] : ["added under load"],
                    colour: 1,
                    isDashed: column == 2
                )
            }
        }
        diagram.box(.init(20, 392, 200, 64), "Prometheus", ["rules, alerts, dashboard"], colour: 3)
        diagram.box(.init(740, 408, 204, 56), "shards", ["a volume, or https://"], colour: 2)
        Self.arrows(&diagram)
        return diagram
    }

    private static func arrows(_ diagram: inout SVGDiagram) {
        diagram.arrow([(124, 119), (227, 119)])
        diagram.arrow([(124, 259), (227, 259)])
        diagram.note("TLS,", (165, 182))
        diagram.note("tokens", (165, 198))
        // Every gateway calls every pool.
        diagram.arrow([(394, 119), (470, 119), (470, 259), (394, 259)], hasTip: false)
        diagram.arrow([(470, 203), (498, 203)], hasTip: false)
        diagram.arrow([(498, 203), (498, 125), (563, 125)])
        diagram.arrow([(498, 203), (498, 281), (563, 281)])
        diagram.note("mutual TLS", (482, 82))
        diagram.note("one call to each pool", (482, 98))
        diagram.note("dns:///pool-1:7401", (482, 310))
        let metrics = SVGDiagram.Stroke(colour: 3, isDashed: true)
        diagram.arrow([(220, 412), (311, 412), (311, 347)], metrics)
        diagram.arrow([(220, 436), (652, 436), (652, 371)], metrics)
        diagram.note("/metrics", (265, 404))
        diagram.arrow([(842, 408), (842, 371)], .init(colour: 2))
        diagram.note("fetched once, kept", (834, 396), anchor: "end")
    }
}
