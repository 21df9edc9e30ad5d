// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@Suite("Types that everything shares")
struct TypesTests {
    @Test("a type's two names lead back to it", arguments: DType.allCases)
    func names(type: DType) {
        #expect(DType(rawValue: type.description) == type)
        #expect(DType(safetensorsName: type.safetensorsName) == type)
    }

    @Test("an unknown or differently spelled name of a type is none", arguments: ["", "f32", "F8_E4M3", "float32"])
    func unknown(name: String) {
        #expect(DType(safetensorsName: name) == nil)
    }

    @Test("what weights, packed weights and rows may be")
    func purposes() {
        #expect(DType.allCases.filter(\.isWeight) == [.float32, .bfloat16, .float16])
        #expect(DType.allCases.filter(\.isPacked) == [.float32, .bfloat16, .int8])
        #expect(DType.allCases.filter(\.isRow) == [.float32, .bfloat16])
    }

    @Test("layers and experts are in the order in which a pass reaches them")
    func order() {
        let layers = [
            SparseLayer(stack: .encoder, block: 1), .init(stack: .encoder, block: 3), .init(stack: .decoder, block: 1),
        ]
        #expect(layers.reversed().sorted() == layers)
        let experts = layers.flatMap { layer in (0..<2).map { ExpertID(layer: layer, index: $0) } }
        #expect(experts.reversed().sorted() == experts)
        #expect("\(experts[1])" == "encoder 1 expert 1")
    }

    @Test("a fingerprint always has sixteen digits")
    func fingerprints() {
        #expect(UInt64(0x0abc).fingerprintText == "0000000000000abc")
        #expect(UInt64.max.fingerprintText == "ffffffffffffffff")
        #expect(UInt64.zero.fingerprintText == "0000000000000000")
    }

    @Test("whole units of a duration are cut, never wrapped")
    func durations() {
        #expect(Duration.milliseconds(1500).inSeconds == 1.5)
        #expect(Duration.microseconds(-3).wholeMicroseconds == 0)
        #expect(Duration.nanoseconds(1999).wholeMicroseconds == 1)
        #expect(Duration.seconds(Int64.max).wholeNanoseconds == .max)
        #expect(Duration.seconds(Int64.min).wholeNanoseconds == .min)
        #expect(Duration.seconds(-2).wholeNanoseconds == -2_000_000_000)
        #expect(Duration.fromSeconds(.infinity) == .seconds(9_000_000_000))
        #expect(Duration.fromSeconds(-1) == .zero)
        #expect(Duration.fromSeconds(0.25) == .milliseconds(250))
    }
}
