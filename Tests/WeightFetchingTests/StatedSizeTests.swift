// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import WeightFetching

@Suite("Sizes that a server states")
struct StatedSizeTests {
    private static let digest = String(repeating: "a", count: 64)
    private static let commit = String(repeating: "b", count: 40)

    private func address() throws -> RemoteAddress { try RemoteAddress(parsing: "https://weights.test/pool-0") }

    private func manifest(_ sizes: [Int]) throws -> PartManifest {
        let files = sizes.enumerated()
            .map { #"{"name":"f\#($0.offset)","byteCount":\#($0.element),"sha256":"\#(Self.digest)"}"# }
        let text = #"{"formatVersion":1,"name":"pool-0","files":[\#(files.joined(separator: ","))]}"#
        return try PartManifest(parsing: Array(text.utf8), from: self.address())
    }

    private func listing(_ sizes: [Int]) throws -> HubListing {
        let files = sizes.enumerated()
            .map { #"{"rfilename":"f\#($0.offset)","size":\#($0.element),"lfs":{"sha256":"\#(Self.digest)"}}"# }
        let text = #"{"sha":"\#(Self.commit)","siblings":[\#(files.joined(separator: ","))]}"#
        return try HubListing(parsing: Array(text.utf8), from: self.address())
    }

    @Test("up to the limit they are taken")
    func whole() throws {
        #expect(try self.manifest([StatedSizes.most - 5, 5]).byteCount == StatedSizes.most)
        #expect(try self.listing([StatedSizes.most - 5, 5]).files.map(\.byteCount) == [StatedSizes.most - 5, 5])
    }

    @Test(
        "beyond it they are refused, one by one and in all",
        arguments: [
            [Int.max, Int.max], [1, Int.max], [Int.max - 1], [StatedSizes.most + 1], [StatedSizes.most, 1],
            Array(repeating: StatedSizes.most, count: 300_000 / 3), [-1],
        ]
    )
    func tooLarge(sizes: [Int]) {
        let manifest = #expect(throws: FetchError.self) { try self.manifest(sizes.suffix(9_000)) }
        #expect(manifest?.description.contains("weights.test") == true)
        #expect(throws: FetchError.self) { try self.listing(sizes) }
    }
}
