// SPDX-License-Identifier: Apache-2.0

import CNGHTTP2
import NIOCore
import Testing

@testable import HTTP2Session

/// libnghttp2's decoder of header blocks, asked for every block.
final class ReferenceDecoder {
    private let inflater: OpaquePointer

    init() throws {
        var inflater: OpaquePointer?
        try #require(nghttp2_hd_inflate_new(&inflater) == 0)
        self.inflater = try #require(inflater)
    }

    deinit { nghttp2_hd_inflate_del(self.inflater) }

    /// How many entries the compression table has, static ones aside.
    var dynamicEntries: Int { nghttp2_hd_inflate_get_num_table_entries(self.inflater) - 61 }

    /// The fields of a block; nil if it is none.
    func decode(_ block: [UInt8]) -> [HTTP2HeaderField]? {
        var fields: [HTTP2HeaderField] = []
        var index = 0
        while true {
            var field = nghttp2_nv()
            var flags: Int32 = 0
            let count = block.withUnsafeBufferPointer {
                nghttp2_hd_inflate_hd2(
                    self.inflater,
                    &field,
                    &flags,
                    $0.baseAddress.map { $0 + index },
                    $0.count - index,
                    1
                )
            }
            guard count >= 0 else { return nil }
            index += count
            if flags & Int32(NGHTTP2_HD_INFLATE_EMIT.rawValue) != 0 {
                let name = UnsafeBufferPointer(start: field.name, count: field.namelen)
                let value = UnsafeBufferPointer(start: field.value, count: field.valuelen)
                fields.append(
                    HTTP2HeaderField(String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self))
                )
            }
            if flags & Int32(NGHTTP2_HD_INFLATE_FINAL.rawValue) != 0 {
                nghttp2_hd_inflate_end_headers(self.inflater)
                return fields
            }
        }
    }
}

@Suite("Header blocks that are known by their bytes")
struct KnownBlocksTests {
    private static func check() -> MessageCheck { MessageCheck(part: .request) }

    private static func found(
        _ blocks: inout KnownBlocks,
        _ bytes: [UInt8],
        part: MessageCheck.Part = .request,
        isRest: (UnsafeRawBufferPointer) -> Bool = { _ in false }
    ) -> Int? {
        bytes.withUnsafeBytes { blocks.find($0, part: part, isRest: isRest)?.id }
    }

    private static func remember(_ blocks: inout KnownBlocks, _ value: String, _ bytes: [UInt8]) -> Int {
        let fields = [HTTP2HeaderField("x", value)]
        return bytes.withUnsafeBytes { blocks.remember(fields, sizeBytes: 34, check: Self.check(), bytes: $0) }
    }

    @Test("are found until the table changes, by all their bytes, and in their part of a message")
    func generations() {
        var blocks = KnownBlocks()
        #expect(Self.found(&blocks, [1, 2]) == nil)
        let first = Self.remember(&blocks, "1", [1, 2])
        let second = Self.remember(&blocks, "2", [1, 2, 3])
        #expect(first != second)
        #expect(Self.found(&blocks, [1, 2]) == first)
        #expect(Self.found(&blocks, [1, 2, 3]) == second)
        #expect(Self.found(&blocks, [1]) == nil)
        #expect(Self.found(&blocks, [1, 2, 4]) == nil)
        #expect(Self.found(&blocks, [1, 2, 4]) { $0.count == 1 && $0[0] == 4 } == first)
        #expect(Self.found(&blocks, [1, 2], part: .requestTrailers) == nil)
        #expect(Self.found(&blocks, []) == nil)

        blocks.tableChanged()
        #expect(Self.found(&blocks, [1, 2]) == nil)
        #expect(Self.found(&blocks, [1, 2, 3]) == nil)
        // The same fields keep their number, under other bytes.
        #expect(Self.remember(&blocks, "1", [9]) == first)
        #expect(Self.found(&blocks, [9]) == first)
        #expect(Self.found(&blocks, [1, 2]) == nil)
        #expect(blocks.checkInvariants() == nil)
    }

    @Test("are few, and the oldest goes first")
    func bounded() {
        var blocks = KnownBlocks()
        var ids: [Int] = []
        for value in 0..<UInt8(KnownBlocks.blockLimit + 3) { ids.append(Self.remember(&blocks, "\(value)", [value])) }
        #expect(Set(ids).count == ids.count)
        for value in 0..<UInt8(ids.count) {
            #expect(Self.found(&blocks, [value]) == (value < 3 ? nil : ids[Int(value)]))
        }
        #expect(blocks.checkInvariants() == nil)
    }

    @Test("without bytes are known by their fields alone")
    func unrecognisable() {
        var blocks = KnownBlocks()
        let id = Self.remember(&blocks, "1", [])
        #expect(Self.found(&blocks, []) == nil)
        #expect(Self.found(&blocks, [7]) { _ in true } == nil)
        #expect(Self.remember(&blocks, "1", [7]) == id)
        #expect(Self.found(&blocks, [7]) == id)
    }

    /// A block for a server, made of parts that repeat so often that blocks recur.
    private static func block(_ decoder: ReferenceDecoder, _ generator: inout SplitMix64) -> [UInt8] {
        var block: [UInt8] = []
        func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &generator) < percent }
        if chance(4) {
            // Another size of the table, 0 and the largest among them; perhaps two of them.
            let sizes: [[UInt8]] = [
                [0x20], [0x3f, 0x21], [0x3f, 0xe1, 0x1f], [0x20, 0x3f, 0xe1, 0x1f], [0x3f, 0x45],
            ]
            block += sizes.randomElement(using: &generator) ?? []
        }
        block += RawPeer.request
        for _ in 0..<Int.random(in: 0...2, using: &generator) {
            let value = "v\(Int.random(in: 0..<2, using: &generator))"
            switch Int.random(in: 0..<100, using: &generator) {
            case 0..<60:
                // An entry of the table: what it means depends on all blocks before. A size update in this very block may
                // have emptied the table, and then it means nothing.
                let entries = min(decoder.dynamicEntries, 3)
                if entries > 0 { block.append(0x80 | UInt8(61 + Int.random(in: 1...entries, using: &generator))) }
            case 60..<66: block += indexed("x-in", value)
            // So large that it evicts others.
            case 66..<68: block += indexed("x-large", String(repeating: value, count: 60))
            // The name of an entry of the table.
            case 68..<75 where decoder.dynamicEntries > 0: block += [0x0f, 0x2f, 2] + Array(value.utf8)
            default: block += literal("x-out", value)
            }
        }
        if chance(50) { block += literal("grpc-timeout", "\(Int.random(in: 1..<40, using: &generator))m") }
        return block
    }

    @Test("mean what a decoder says, whatever other blocks do to its table", arguments: 0..<6)
    func agreeWithDecoder(seed: UInt64) throws {
        var generator = SplitMix64(state: seed &* 7_919 &+ 1)
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.variableFieldName = "grpc-timeout"
        configuration.idleFrameBurst = 1_000_000
        var recognised = 0
        var broken = 0
        for _ in 0..<12 {
            let decoder = try ReferenceDecoder()
            let peer = try RawPeer(.server, configuration)
            var fieldsOfID: [Int: [HTTP2HeaderField]] = [:]
            for index in 0..<150 {
                let block = Self.block(decoder, &generator)
                let streamID = UInt32(2 * index + 1)
                guard let expected = decoder.decode(block) else {
                    broken += 1
                    #expect(peer.sendFault(headers(streamID, block, flags: 5)) == .compressionError)
                    break
                }
                peer.forget()
                if Int.random(in: 0..<20, using: &generator) == 0 {
                    // In pieces it is decoded.
                    let cut = Int.random(in: 0...block.count, using: &generator)
                    try peer.send(
                        headers(streamID, Array(block[..<cut]), flags: 1),
                        frame(type: 9, flags: 4, streamID: streamID, payload: Array(block[cut...]))
                    )
                } else {
                    try peer.send(headers(streamID, block, flags: 5))
                }
                let seen = try #require(peer.events.blocks(of: Int32(streamID)).first)
                #expect(seen.fields + [seen.variable].compactMap(\.self) == expected)
                if let id = seen.recurrence {
                    if let known = fieldsOfID[id] {
                        recognised += 1
                        #expect(known == seen.fields)
                    }
                    fieldsOfID[id] = seen.fields
                }
                peer.codec.reset(streamID: Int32(streamID), code: .noError)
                peer.collect()
            }
        }
        // The test is about repeated blocks and about blocks that become wrong.
        #expect(recognised > 200)
        #expect(broken > 0)
    }
}

@Suite("The form of header blocks")
struct HPACKTextTests {
    private static func shape(_ block: [UInt8]) -> HPACKText.Shape? {
        block.withUnsafeBytes { HPACKText.shape(of: $0) }
    }

    @Test("shows whether a block changes the table, and where its last field begins")
    func shapes() {
        #expect(Self.shape([]) == HPACKText.Shape(keepsTable: true, lastField: 0))
        #expect(Self.shape([0x82, 0x84]) == HPACKText.Shape(keepsTable: true, lastField: 1))
        // An index of several bytes.
        #expect(Self.shape([0xff, 0x80, 0x01, 0x84]) == HPACKText.Shape(keepsTable: true, lastField: 3))
        #expect(Self.shape([0x82] + literal("a", "b")) == HPACKText.Shape(keepsTable: true, lastField: 1))
        #expect(Self.shape([0x14, 1, 0x61])?.keepsTable == true)
        #expect(Self.shape([0x0f, 0x00, 0x81, 0xff])?.keepsTable == true)
        #expect(Self.shape([0x82] + indexed("a", "b"))?.keepsTable == false)
        #expect(Self.shape([0x44, 1, 0x2f])?.keepsTable == false)
        #expect(Self.shape([0x20, 0x82])?.keepsTable == false)
        #expect(Self.shape([0x3f, 0xe1, 0x1f, 0x82])?.keepsTable == false)
    }

    @Test("is none where a field is cut off or a number is too large")
    func cutOff() {
        let block = [0x82] + literal("name", "value")
        for count in 2..<block.count { #expect(Self.shape(Array(block[..<count])) == nil) }
        #expect(Self.shape([0xff, 0xff]) == nil)
        #expect(Self.shape([0xff] + Array(repeating: 0xff, count: 12) + [0x01]) == nil)
        #expect(Self.shape([0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x61]) == nil)
    }

    @Test("agrees with the library about every block that its encoder makes", arguments: 0..<4)
    func encoded(seed: UInt64) throws {
        var generator = SplitMix64(state: seed)
        let encoder = try HPACKEncoder()
        let decoder = try ReferenceDecoder()
        for _ in 0..<200 {
            let fields = (0..<Int.random(in: 1...4, using: &generator))
                .map { _ in
                    HTTP2HeaderField(
                        ["content-type", "x-a", "grpc-status"].randomElement(using: &generator) ?? "x-b",
                        String(repeating: "v", count: Int.random(in: 0..<400, using: &generator)),
                        isNeverIndexed: Bool.random(using: &generator)
                    )
                }
            let before = decoder.dynamicEntries
            let generation = encoder.generation
            var block: [UInt8] = []
            let stored = StoredFields(fields)
            let isEncoded = withExtendedLifetime(stored) {
                stored.vectors.withUnsafeBufferPointer { encoder.encode($0, into: &block) }
            }
            #expect(isEncoded)
            #expect(decoder.decode(block) == fields.map { HTTP2HeaderField($0.name, $0.value) })
            let shape = try #require(Self.shape(block))
            #expect(shape.keepsTable == (encoder.generation == generation))
            // A table that grew has changed; one that did not may have lost as many entries as it got.
            if decoder.dynamicEntries != before { #expect(!shape.keepsTable) }
            if shape.keepsTable { #expect(decoder.decode(block) == fields.map { HTTP2HeaderField($0.name, $0.value) }) }
        }
    }

    @Test(
        "of a field by hand is one that every decoder reads",
        arguments: [0, 1, 126, 127, 128, 254, 255, 300, 70_000]
    )
    func appended(count: Int) throws {
        let field = HTTP2HeaderField("x-long", String(repeating: "v", count: count), isNeverIndexed: count % 2 == 0)
        var bytes: [UInt8] = []
        HPACKText.append(field, to: &bytes)
        let value = bytes.withUnsafeBytes { HPACKText.value(of: $0, named: "x-long") }
        #expect(value == bytes.count - count..<bytes.count)
        #expect(bytes.withUnsafeBytes { HPACKText.value(of: $0, named: "x-lonh") } == nil)
        #expect(bytes.dropLast().withUnsafeBytes { HPACKText.value(of: $0, named: "x-long") } == nil)
        #expect((bytes + [0x82]).withUnsafeBytes { HPACKText.value(of: $0, named: "x-long") } == nil)
        guard count < 60_000 else { return }
        #expect(try ReferenceDecoder().decode(bytes) == [HTTP2HeaderField("x-long", field.value)])
    }

    @Test("of a field is not taken for the variable one when it is compressed, indexed or of another name")
    func otherForms() {
        for bytes in [
            indexed("x-long", "v"), [0x00, 0x86, 1, 2, 3, 4, 5, 6, 1, 0x76], [0x04, 1, 0x2f], [0x82], [0x00], [],
            [0x00, 6], Array("x-long".utf8),
        ] {
            #expect(bytes.withUnsafeBytes { HPACKText.value(of: $0, named: "x-long") } == nil)
        }
    }
}
