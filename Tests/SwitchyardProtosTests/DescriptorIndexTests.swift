// SPDX-License-Identifier: Apache-2.0

import SwitchyardProtos
import Testing

@Suite struct DescriptorIndexTests {
    /// A field of bytes: tag, length, content.
    private func field(_ number: UInt8, _ content: [UInt8]) -> [UInt8] {
        precondition(content.count < 128)
        return [number << 3 | 2, UInt8(content.count)] + content
    }

    private func text(_ number: UInt8, _ text: String) -> [UInt8] { self.field(number, Array(text.utf8)) }

    @Test func `everything that the project's files declare is found in its file`() throws {
        let index = try FileDescriptors.index()
        let gateway = try #require(index.file(named: "switchyard/v1/gateway.proto"))
        let types = try #require(index.file(named: "switchyard/v1/types.proto"))
        let health = try #require(index.file(named: "grpc/health/v1/health.proto"))
        for symbol in [
            "switchyard.v1.Gateway", "switchyard.v1.Gateway.Generate", "switchyard.v1.GenerateRequest",
            "switchyard.v1.GenerateRequest.text", "switchyard.v1.GenerateRequest.input",
        ] {
            #expect(index.file(containing: symbol) == gateway, "\(symbol)")
        }
        for symbol in [
            "grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc.health.v1.HealthCheckResponse.SERVING",
            "grpc.health.v1.HealthListResponse.StatusesEntry", "grpc.health.v1.Health.List",
        ] {
            #expect(index.file(containing: symbol) == health, "\(symbol)")
        }
        for version in ["v1", "v1alpha"] {
            let file = index.file(named: "grpc/reflection/\(version)/reflection.proto")
            #expect(file != nil)
            #expect(index.file(containing: "grpc.reflection.\(version).ServerReflection") == file)
        }
        #expect(index.closure(of: gateway) == [gateway, types])
        #expect(index.closure(of: types) == [types])
        #expect(index.file(named: "gateway.proto") == nil)
        #expect(index.file(containing: "Gateway") == nil)
        #expect(index.file(containing: "") == nil)
        #expect(index.extensionNumbers(of: "switchyard.v1.GenerateRequest") == [])
        #expect(index.extensionNumbers(of: "switchyard.v1.Gateway") == nil)
        #expect(index.closure(of: -1).isEmpty)
        #expect(index.descriptor(at: 999).isEmpty)
    }

    @Test func `extensions are found by the message they extend, wherever they are declared`() throws {
        // Two files without a package: M { nested N { extend M { 5 } } }, and one that imports it and extends M by 300.
        let inner = self.text(1, "five") + [3 << 3, 5] + self.text(2, ".M")
        let nested = self.text(1, "N") + self.field(6, inner)
        let base = self.text(1, "base.proto") + self.field(4, self.text(1, "M") + self.field(3, nested))
        let outer = self.text(2, ".M") + self.text(1, "big") + [3 << 3, 0xAC, 0x02]
        let other =
            self.text(1, "other.proto") + self.text(2, "p.q") + self.text(3, "base.proto") + self.field(7, outer)
        let set = self.field(1, base) + self.field(1, other)
        let index = try DescriptorIndex(serializedSet: set)
        #expect(index.extensionNumbers(of: "M") == [5, 300])
        #expect(index.file(extending: "M", number: 5) == 0)
        #expect(index.file(extending: "M", number: 300) == 1)
        #expect(index.file(extending: "M", number: 6) == nil)
        #expect(index.file(extending: "N", number: 5) == nil)
        #expect(index.file(containing: "M.N.five") == 0)
        #expect(index.file(containing: "p.q.big") == 1)
        #expect(index.closure(of: 1) == [1, 0])
        #expect(index.descriptor(at: 1) == other)
    }

    @Test func `files that import each other end`() throws {
        let a = self.text(1, "a") + self.text(3, "b") + self.text(3, "missing")
        let b = self.text(1, "b") + self.text(3, "a")
        let index = try DescriptorIndex(serializedSet: self.field(1, a) + self.field(1, b))
        #expect(index.closure(of: 0) == [0, 1])
        #expect(index.closure(of: 1) == [1, 0])
    }

    @Test func `a damaged set is an error at every cut, never a crash`() {
        let set = FileDescriptors.serializedSet
        var failures = 0
        for end in stride(from: 1, to: set.count, by: 97) {
            do throws(ProtoError) { _ = try DescriptorIndex(serializedSet: Array(set[..<end])) } catch { failures += 1 }
        }
        #expect(failures > 0)
        var deep: [UInt8] = []
        for _ in 0..<40 { deep = self.field(3, deep) }
        let file = self.field(1, self.field(4, deep))
        let error = #expect(throws: ProtoError.self) { try DescriptorIndex(serializedSet: file) }
        #expect(error?.code == .overLimit)
    }
}
