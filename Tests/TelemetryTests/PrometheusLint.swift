// SPDX-License-Identifier: Apache-2.0

/// Checks Prometheus text by its own rules, for machines without `promtool`.
enum PrometheusLint {
    /// What is wrong with a text.
    ///
    /// - Parameter text: What a scrape got.
    /// - Returns: The offences; none where all is well.
    static func offences(in text: String) -> [String] {
        var offences: [String] = []
        var help: [String: String] = [:]
        var types: [String: String] = [:]
        var series: Set<String> = []
        if !text.isEmpty, !text.hasSuffix("\n") { offences.append("the last line has no end") }
        for line in text.split(separator: "\n") {
            if line.hasPrefix("# HELP ") {
                let parts = line.dropFirst(7).split(separator: " ", maxSplits: 1)
                if parts.count != 2 { offences.append("no help: \(line)") }
                if help.updateValue(String(parts.last ?? ""), forKey: String(parts[0])) != nil {
                    offences.append("two helps: \(line)")
                }
                continue
            }
            if line.hasPrefix("# TYPE ") {
                let parts = line.dropFirst(7).split(separator: " ")
                let name = String(parts[0])
                if help[name] == nil { offences.append("no help before: \(line)") }
                if types.updateValue(String(parts.last ?? ""), forKey: name) != nil {
                    offences.append("two types: \(line)")
                }
                continue
            }
            guard let space = line.lastIndex(of: " "), Double(Self.number(line[line.index(after: space)...])) != nil
            else {
                offences.append("no sample: \(line)")
                continue
            }
            let key = String(line[..<space])
            if !series.insert(key).inserted { offences.append("twice: \(key)") }
            let name = String(key.prefix { $0 != "{" })
            let family = Self.family(of: name, types)
            guard let type = types[family] else {
                offences.append("no type: \(line)")
                continue
            }
            if (type == "counter") != family.hasSuffix("_total") { offences.append("name and type: \(family)") }
            if !Self.isName(name) { offences.append("no name: \(name)") }
        }
        for (name, type) in types where type == "histogram" {
            for key in series where key == "\(name)_count" || key.hasPrefix("\(name)_count{") {
                let labels = key.dropFirst("\(name)_count".count).dropFirst().dropLast()
                let comma = labels.isEmpty ? "" : ","
                if !series.contains("\(name)_bucket{\(labels)\(comma)le=\"+Inf\"}") {
                    offences.append("no last bucket: \(key)")
                }
            }
        }
        return offences
    }

    /// A histogram's lines have suffixes that its family lacks.
    private static func family(of name: String, _ types: [String: String]) -> String {
        for suffix in ["_bucket", "_sum", "_count"] where name.hasSuffix(suffix) {
            let family = String(name.dropLast(suffix.count))
            if types[family] == "histogram" { return family }
        }
        return name
    }

    private static func number(_ text: Substring) -> String {
        ["+Inf": "inf", "-Inf": "-inf", "NaN": "nan"][text] ?? String(text)
    }

    static func isName(_ name: String) -> Bool {
        let isSound = name.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"): true
            default: false
            }
        }
        return isSound && name.utf8.first.map { $0 > UInt8(ascii: "9") } ?? false
    }
}
