// SPDX-License-Identifier: Apache-2.0

/// A target as `Package.swift` declares it.
struct DeclaredTarget: Equatable {
    let name: String
    let line: Int
    let dependencies: Set<String>
}

/// Reads the targets of `Package.swift` without running it.
///
/// It relies on how the manifest is written: a target's name is a literal, and its dependencies are literals or constants
/// that are declared as `let name = Target.Dependency.product(name: "Module", ...)`.
enum ManifestScanner {
    /// The targets of a manifest, test targets left out.
    ///
    /// - Parameter text: The manifest.
    /// - Returns: The targets in the manifest's order.
    static func targets(in text: String) -> [DeclaredTarget] {
        let products = Self.products(in: text)
        var targets: [DeclaredTarget] = []
        for kind in [".target(", ".executableTarget(", ".systemLibrary("] {
            for start in text.ranges(of: kind).map(\.upperBound) {
                let body = Self.balanced(text[start...], closing: ")")
                guard let name = body.firstRange(of: "name: \"") else { continue }
                let line = text[..<start].count { $0 == "\n" } + 1
                var dependencies: Set<String> = []
                if let list = body.firstRange(of: "dependencies: [") {
                    for item in Self.balanced(body[list.upperBound...], closing: "]").split(separator: ",") {
                        let item = String(item.filter { !$0.isWhitespace })
                        guard !item.isEmpty else { continue }
                        dependencies.insert(products[item] ?? item.filter { $0 != "\"" })
                    }
                }
                targets.append(
                    DeclaredTarget(
                        name: String(body[name.upperBound...].prefix { $0 != "\"" }),
                        line: line,
                        dependencies: dependencies
                    )
                )
            }
        }
        return targets.sorted { $0.line < $1.line }
    }

    /// The constants of a manifest that stand for products: constant to module.
    private static func products(in text: String) -> [String: String] {
        var products: [String: String] = [:]
        let marker = " = Target.Dependency.product(name: \""
        for line in text.split(separator: "\n") where line.hasPrefix("let ") {
            guard let range = line.firstRange(of: marker) else { continue }
            let constant = line[..<range.lowerBound].dropFirst("let ".count)
            products[String(constant)] = String(line[range.upperBound...].prefix { $0 != "\"" })
        }
        return products
    }

    /// The text up to the bracket that closes the one before it.
    private static func balanced(_ text: Substring, closing: Character) -> Substring {
        var depth = 0
        for index in text.indices {
            switch text[index] {
            case "(", "[": depth += 1
            case ")", "]":
                if depth == 0, text[index] == closing { return text[..<index] }
                depth -= 1
            default: break
            }
        }
        return text
    }
}
