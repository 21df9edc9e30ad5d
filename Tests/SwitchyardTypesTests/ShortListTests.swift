// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@Suite("Short lists")
struct ShortListTests {
    @Test("have the elements that an array has after the same changes", arguments: 0..<20)
    func changes(seed: Int) {
        var state = UInt64(seed) &* 0x9E37_79B9_7F4A_7C15 | 1
        func draw(_ count: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % count
        }
        var list = ShortList<Int>()
        var array: [Int] = []
        for step in 0..<300 {
            switch draw(5) {
            case 0, 1:
                list.append(step)
                array.append(step)
            case 2 where !array.isEmpty:
                let index = draw(array.count)
                #expect(list.remove(at: index) == array.remove(at: index))
            case 3 where !array.isEmpty:
                let index = draw(array.count)
                list[index] += 1_000
                array[index] += 1_000
            default:
                if draw(12) == 0 {
                    list.removeAll()
                    array.removeAll()
                }
            }
            #expect(Array(list) == array && list.count == array.count && list.isEmpty == array.isEmpty)
            #expect(list.first == array.first && list.last == array.last)
            #expect(list == ShortList(contentsOf: array))
        }
    }

    @Test("are written as lists")
    func literals() {
        let (none, one, three): (ShortList<Int>, ShortList<Int>, ShortList<Int>) = ([], [1], [1, 2, 3])
        #expect(none.isEmpty && Array(one) == [1] && Array(three) == [1, 2, 3])
        #expect(one == ShortList(1) && one != three)
    }
}
