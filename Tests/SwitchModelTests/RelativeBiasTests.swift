// SPDX-License-Identifier: Apache-2.0

import TensorKernels
import Testing

@testable import SwitchModel

@Suite("Relative position buckets")
struct RelativeBiasTests {
    private func bias(bidirectional: Bool) -> RelativeBias {
        let table = FloatMatrix(rows: 32, columns: 2)
        for bucket in 0..<32 {
            table.row(bucket)[0] = Float(bucket)
            table.row(bucket)[1] = Float(-bucket)
        }
        return RelativeBias(table: table, bidirectional: bidirectional, largestDistance: 128)
    }

    @Test(
        "of the encoder match transformers",
        arguments: [
            (0...0, 0), (7...7, 7), (8...11, 8), (12...15, 9), (16...22, 10), (23...31, 11), (32...45, 12),
            (46...63, 13),
            (64...90, 14), (91...2000, 15),
        ]
    )
    func encoder(distances: ClosedRange<Int>, bucket: Int) {
        let bias = self.bias(bidirectional: true)
        for distance in [distances.lowerBound, distances.upperBound] {
            #expect(bias.bucket(distance: -distance) == bucket)
            #expect(bias.bucket(distance: distance) == (distance == 0 ? 0 : bucket + 16))
        }
    }

    @Test(
        "of the decoder match transformers",
        arguments: [
            (0...0, 0), (1...1, 1), (15...15, 15), (16...18, 16), (19...20, 17), (21...23, 18), (24...26, 19),
            (27...30, 20), (31...34, 21), (35...39, 22), (40...45, 23), (46...51, 24), (52...58, 25), (59...66, 26),
            (67...76, 27), (77...86, 28), (87...98, 29), (99...112, 30), (113...2000, 31),
        ]
    )
    func decoder(distances: ClosedRange<Int>, bucket: Int) {
        let bias = self.bias(bidirectional: false)
        for distance in [distances.lowerBound, distances.upperBound] {
            #expect(bias.bucket(distance: -distance) == bucket)
            #expect(bias.bucket(distance: distance) == 0)
        }
    }

    @Test("come from the formula for sizes without a table, which agrees with the tables")
    func formula() {
        for (buckets, largest) in [(16, 128), (32, 128)] {
            let table = self.bias(bidirectional: buckets == 16)
            for magnitude in (buckets / 2)...400 {
                let value = RelativeBias.logarithmicBucket(magnitude, buckets: buckets, largest: largest)
                #expect(value == table.bucket(distance: -magnitude), "distance \(magnitude) of \(buckets) buckets")
            }
        }
        let small = RelativeBias(table: FloatMatrix(rows: 8, columns: 1), bidirectional: true, largestDistance: 10)
        #expect((0...12).map { small.bucket(distance: -$0) } == [0, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3])
    }

    @Test("are laid out so that a query's biases are consecutive", arguments: [true, false])
    func spans(bidirectional: Bool) {
        let bias = self.bias(bidirectional: bidirectional)
        let span = bias.span(length: 140)
        for position in [0, 1, 77, 139] {
            let row = span.row(head: 1, position: position)
            for key in 0...(bidirectional ? 139 : position) {
                #expect(row[key] == Float(-bias.bucket(distance: key - position)))
            }
        }
    }
}
