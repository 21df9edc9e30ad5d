// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import Figures
@testable import switchyard_bench

@Suite("Pictures of the documents")
struct PicturesTests {
    private static let pictures = Pictures(root: BenchProgram.root.path)

    @Test("pictures and the simulator's table are those of the committed figures")
    func upToDate() throws {
        let made = try Self.pictures.all()
        #expect(made.count == 10)
        for file in made {
            let committed = try String(contentsOf: BenchProgram.root.appendingPathComponent(file.path), encoding: .utf8)
            #expect(committed == file.content, "\(file.path) is out of date; run `make pictures`")
        }
    }

    @Test("every picture of the documents is made, and is drawn for light and dark pages")
    func all() throws {
        let folder = BenchProgram.root.appendingPathComponent("docs/images")
        let files = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".svg") }
        let made = try Self.pictures.all().map(\.path)
        for file in files {
            #expect(made.contains("docs/images/\(file)"), "no command makes \(file)")
            let svg = try String(contentsOf: folder.appendingPathComponent(file), encoding: .utf8)
            #expect(svg.contains("prefers-color-scheme: dark"), "\(file) has no colours for dark pages")
            #expect(svg.contains("<title>"), "\(file) says nothing to screen readers")
            #expect(!svg.contains("fill=\"#") && !svg.contains("stroke=\"#"), "\(file) has a colour for one page alone")
        }
    }

    @Test("no text is cut at the edge of a picture, and none is wider than its box")
    func room() throws {
        for made in try Self.pictures.all() where made.path.hasSuffix(".svg") {
            #expect(Self.cutTexts(made.content).isEmpty, "\(made.path): \(Self.cutTexts(made.content))")
        }
        #expect(OverviewDiagram.diagram.overfull.isEmpty, "\(OverviewDiagram.diagram.overfull)")
        #expect(DeploymentDiagram.diagram.overfull.isEmpty, "\(DeploymentDiagram.diagram.overfull)")
        let cut =
            "<svg viewBox=\"0 0 100 50\"><text class=\"small\" x=\"90\" y=\"9\" text-anchor=\"start\">cut off</text>"
        #expect(Self.cutTexts(cut) == ["cut off"])
    }

    /// Texts that are not turned and do not lie within the page.
    private static func cutTexts(_ svg: String) -> [String] {
        guard let box = svg.firstMatch(of: /viewBox="0 0 ([\d.]+) ([\d.]+)"/), let width = Double(box.1) else {
            return ["no viewBox"]
        }
        var left = 0.0
        var cut: [String] = []
        for line in svg.split(separator: "\n") {
            if let group = line.firstMatch(of: #/<g transform="translate\(([\d.]+) /#) {
                left = Double(group.1) ?? 0
            } else if line == "</g>" {
                left = 0
            }
            let pattern = /<text class="(\w+)" x="([\d.-]+)" y="[\d.-]+" text-anchor="(\w+)">([^<]*)</
            guard let text = line.firstMatch(of: pattern), let x = Double(text.2) else { continue }
            let size =
                switch text.1 {
                case "title": SVG.titleSize
                case "head": SVG.headSize
                case "small": SVG.smallSize
                default: SVG.labelSize
                }
            let isBold = text.1 == "title" || text.1 == "head"
            let length = SVGText.width(String(text.4), size: size, isBold: isBold)
            let start = left + x - (text.3 == "middle" ? length / 2 : text.3 == "end" ? length : 0)
            if start < 0 || start + length > width { cut.append(String(text.4)) }
        }
        return cut
    }
}
