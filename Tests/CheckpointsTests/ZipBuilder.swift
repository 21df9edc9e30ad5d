// SPDX-License-Identifier: Apache-2.0

/// Writes stored zip archives, with 64-bit fields everywhere if asked, as files over 4 GiB have them.
struct ZipBuilder {
    private let zip64: Bool
    private var bytes: [UInt8] = []
    private var directory: [UInt8] = []
    private var count = 0

    init(zip64: Bool) { self.zip64 = zip64 }

    static func little(_ value: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }

    mutating func add(_ name: String, _ data: [UInt8]) {
        let little = Self.little
        let offset = self.bytes.count
        let padding: [UInt8] = little(0x4246, 2) + little(5, 2) + Array(repeating: 90, count: 5)
        self.bytes += little(0x0403_4B50, 4) + little(20, 2) + little(0, 2) + little(0, 2) + little(0, 4) + little(0, 4)
        self.bytes +=
            little(data.count, 4) + little(data.count, 4) + little(name.utf8.count, 2) + little(padding.count, 2)
        self.bytes += Array(name.utf8) + padding + data
        let mark = 0xFFFF_FFFF
        let wide =
            self.zip64
            ? little(0x4246, 2) + little(0, 2) + little(1, 2) + little(24, 2) + little(data.count, 8)
                + little(data.count, 8) + little(offset, 8) : []
        self.directory +=
            little(0x0201_4B50, 4) + little(20, 2) + little(20, 2) + little(0, 2) + little(0, 2) + little(0, 4)
        self.directory +=
            little(0, 4) + little(self.zip64 ? mark : data.count, 4) + little(self.zip64 ? mark : data.count, 4)
        self.directory +=
            little(name.utf8.count, 2) + little(wide.count, 2) + little(0, 2) + little(0, 2) + little(0, 2)
        self.directory += little(0, 4) + little(self.zip64 ? mark : offset, 4) + Array(name.utf8) + wide
        self.count += 1
    }

    func finish(comment: [UInt8] = []) -> [UInt8] {
        let little = Self.little
        let start = self.bytes.count
        var result = self.bytes + self.directory
        if self.zip64 {
            let record = result.count
            result +=
                little(0x0606_4B50, 4) + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 4) + little(0, 4)
            result += little(self.count, 8) + little(self.count, 8) + little(self.directory.count, 8) + little(start, 8)
            result += little(0x0706_4B50, 4) + little(0, 4) + little(record, 8) + little(1, 4)
        }
        let mark = self.zip64
        result += little(0x0605_4B50, 4) + little(0, 2) + little(0, 2) + little(mark ? 0xFFFF : self.count, 2)
        result += little(mark ? 0xFFFF : self.count, 2) + little(mark ? 0xFFFF_FFFF : self.directory.count, 4)
        result += little(mark ? 0xFFFF_FFFF : start, 4) + little(comment.count, 2) + comment
        return result
    }
}
