// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import SwitchyardTypes
import Testing

@Suite("Pool specifications")
struct PoolSpecificationTests {
    @Test("pools are written NAME=TARGET[,TARGET]")
    func parsing() throws {
        let pool = try PoolSpecification(parsing: "pool-0=a:7401,[::1]:7402,dns:///experts:7401")
        #expect(pool.name == "pool-0")
        #expect(
            pool.targets == [
                .address(host: "a", port: 7401), .address(host: "::1", port: 7402), .name(host: "experts", port: 7401),
            ]
        )
        #expect(pool.targets.map(\.description) == ["a:7401", "[::1]:7402", "dns:///experts:7401"])
        let local = try PoolSpecification(parsing: "pool-0=unix:/run/a.sock,unix:///run/b.sock,a:7401")
        #expect(local.targets.map(\.description) == ["unix:/run/a.sock", "unix:/run/b.sock", "a:7401"])
        #expect(local.targets[0] == .address(host: "unix:/run/a.sock", port: 0))
        #expect(ReplicaID(pool: "pool-0", host: "unix:/run/a.sock", port: 0).description == "pool-0@unix:/run/a.sock")
    }

    @Test(
        "what cannot be used is named",
        arguments: [
            ("pool-0", "NAME=TARGET"), ("=a:1", "NAME=TARGET"), ("p=a", "lacks a port"), ("p=a:0", "from 1 to 65535"),
            ("p=a:70000", "70000"), ("p=a:x", "\"x\""), ("p=:1", "lacks a host"), ("p=a:1,a:1", "twice"),
            ("p=::1:7401", "brackets"), ("p=http://a:1", "host:port, unix:/path, dns"),
            ("p=unix:a.sock", "absolute path"),
            ("p=unix:/a,unix:///a", "twice"), ("p=a:1,", "lacks a port"),
        ]
    )
    func refusing(text: String, part: String) {
        let error = #expect(throws: PoolSpecificationError.self) { try PoolSpecification(parsing: text) }
        #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
    }
}

@Suite("Placement")
struct PlacementTableTests {
    @Test("a layer's rows are split into one call for each pool")
    func assignments() {
        var table = PlacementTable()
        let layer = SparseLayer(stack: .encoder, block: 1)
        for expert in 0..<3 { table.place(expert, of: layer, on: expert == 1 ? "b" : "a") }
        let split = table.assignments(of: [(0, 2), (1, 3), (2, 1), (3, 4)], in: layer)
        #expect(split.unplaced == [6..<10])
        #expect(split.calls.map(\.pool) == ["a", "b"])
        #expect(split.calls[0].groups == [.init(expert: 0, rows: 0..<2), .init(expert: 2, rows: 5..<6)])
        #expect(split.calls[1].groups == [.init(expert: 1, rows: 2..<5)])
        #expect(split.calls[0].rowCount == 3)
        let other = table.assignments(of: [(0, 1)], in: SparseLayer(stack: .decoder, block: 1))
        #expect(other.calls.isEmpty)
        #expect(other.unplaced == [0..<1])
        #expect(table.unplaced(layers: [layer], expertCount: 4) == [layer: [3]])
    }

    @Test("a file lists one address per line")
    func list() throws {
        #expect(try PoolTarget(parsing: "file:///etc/pool-0") == .file(path: "/etc/pool-0"))
        #expect(PoolTarget.file(path: "/etc/pool-0").description == "file:///etc/pool-0")
        let text = "# the first rack\r\n a:1 \n\nb:2 # spare\n[::1]:3\na:1\n"
        let list = try TargetList.parse(text)
        #expect(list.map { "\($0.host) \($0.port)" } == ["a 1", "b 2", "::1 3"])
        #expect(try TargetList.parse("").isEmpty)
    }

    @Test(
        "a list that cannot be used is refused, with the line",
        arguments: [
            ("a:1\nb", "line 2: the target \"b\" lacks a port"),
            ("dns:///a:1", "line 1, \"dns:///a:1\", must be host:port"),
            ("a:0", "line 1: the port \"0\""), (String(repeating: "a:1\n", count: 3) + "a b:x", "line 4"),
        ]
    )
    func wrongList(text: String, part: String) {
        let error = #expect(throws: PoolSpecificationError.self) { try TargetList.parse(text) }
        #expect(error?.description.contains(part) == true, "\(String(describing: error))")
        #expect(throws: PoolSpecificationError.self) { try PoolTarget(parsing: "file://etc/pool-0") }
        #expect(throws: PoolSpecificationError.self) {
            try TargetList.parse((0...TargetList.addressLimit).map { "h\($0):1" }.joined(separator: "\n"))
        }
    }
}
