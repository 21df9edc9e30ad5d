// SPDX-License-Identifier: Apache-2.0

import Figures
import SwitchyardTypes

/// The picture at the head of docs/architecture.md: what a request goes through.
enum OverviewDiagram {
    /// The drawing.
    static var diagram: SVGDiagram {
        var diagram = SVGDiagram(
            title:
                "A request goes through the gateway's scheduler, encoder and decoder. At each sparse layer its token rows go "
                + "to the expert hosts and back. Each step of the decoder loop gives one token.",
            width: 980,
            height: 520
        )
        Self.gateway(&diagram)
        Self.hosts(&diagram)
        Self.flow(&diagram)
        return diagram
    }

    private static let hostTops = [60.0, 142, 224, 306]

    private static func gateway(_ diagram: inout SVGDiagram) {
        diagram.box(.init(20, 76, 104, 398), "client", ["any gRPC", "client"], colour: 4)
        diagram.group(.init(190, 24, 488, 472), "gateway")
        diagram.box(
            .init(236, 60, 412, 54),
            "admission and scheduler",
            ["bounded queue, batch slots, one plan for each step"],
            colour: 0
        )
        diagram.group(.init(226, 132, 192, 224), "blocks")
        diagram.box(.init(236, 162, 172, 56), "encoder", ["once for each input"], colour: 2)
        diagram.box(
            .init(236, 254, 172, 90),
            "decoder",
            ["one token for each", "running sequence;", "keys and values kept"],
            colour: 2
        )
        diagram.box(.init(236, 414, 172, 56), "next token", ["greedy, sampled or beams"], colour: 2)
        diagram.box(.init(484, 148, 164, 56), "router", ["the best expert, capacity"], colour: 5)
        diagram.box(.init(484, 252, 164, 56), "dispatch", ["rows grouped by expert"], colour: 5)
        diagram.box(
            .init(484, 398, 164, 72),
            "combine",
            ["residual + probability", "× expert output"],
            colour: 5
        )
    }

    private static func hosts(_ diagram: inout SVGDiagram) {
        for (index, top) in Self.hostTops.enumerated() {
            diagram.box(
                .init(786, top, 140, 58),
                "expert host",
                ["experts \(2 * index) and \(2 * index + 1)"],
                colour: 1
            )
        }
    }

    private static func flow(_ diagram: inout SVGDiagram) {
        // In and out.
        diagram.arrow([(124, 92), (235, 92)])
        diagram.note("Generate", (157, 84))
        diagram.arrow([(236, 458), (125, 458)])
        diagram.note("tokens", (157, 450))
        // Down the middle.
        diagram.arrow([(322, 114), (322, 161)])
        diagram.arrow([(322, 218), (322, 253)])
        diagram.arrow([(322, 344), (322, 413)])
        // The decoder loop.
        let loop = SVGDiagram.Stroke(colour: 3)
        diagram.arrow([(236, 430), (214, 430), (214, 104), (235, 104)], loop)
        diagram.note("decoder loop: next step, until the sequence ends", (208, 268), angle: -90)
        // Into a sparse layer and back, from either stack.
        let rows = SVGDiagram.Stroke(colour: 5)
        diagram.arrow([(418, 176), (483, 176)], rows)
        diagram.note("sparse", (451, 152))
        diagram.note("layer", (451, 168))
        diagram.arrow([(484, 434), (451, 434), (451, 318), (419, 318)], rows)
        diagram.arrow([(566, 204), (566, 251)], rows)
        diagram.arrow([(566, 308), (566, 397)], .init(colour: 5, isDashed: true))
        diagram.note("residual", (560, 345), anchor: "end")
        // To the hosts and back, around them.
        let calls = SVGDiagram.Stroke(colour: 1)
        let middles = Self.hostTops.map { $0 + 29 }
        let (top, bottom) = (middles.min() ?? 0, middles.max() ?? 0)
        diagram.arrow([(648, 280), (732, 280)], calls, hasTip: false)
        diagram.arrow([(732, 280), (732, top), (785, top)], calls)
        diagram.arrow([(732, 280), (732, bottom), (785, bottom)], calls)
        diagram.arrow([(926, top), (954, top), (954, 434), (649, 434)], calls)
        for middle in middles.dropFirst() {
            if middle != bottom { diagram.arrow([(732, middle), (785, middle)], calls) }
            diagram.arrow([(926, middle), (954, middle)], calls, hasTip: false)
        }
        diagram.note("one call to each pool,", (816, 398))
        diagram.note("all at once, one deadline", (816, 414))
        diagram.note("a row that is not answered in time keeps", (816, 456))
        diagram.note("its residual alone and is counted as dropped", (816, 472))
    }
}
