// SPDX-License-Identifier: Apache-2.0

internal import SwitchTraining
internal import SwitchyardProtos

extension TrainingRowsEnvelope {
    /// The run and its trainer.
    var session: TrainingSession { TrainingSession(run: self.rows.modelFingerprint, trainer: self.trainer) }

    /// Where each row's dropout comes from.
    var rowPlaces: [RowPlace] {
        self.places.withUnsafeBytes { bytes in
            (0..<bytes.count / 8)
                .map { row in
                    RowPlace(
                        sequence: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 8 * row, as: UInt32.self)),
                        position: UInt32(
                            littleEndian: bytes.loadUnaligned(fromByteOffset: 8 * row + 4, as: UInt32.self)
                        )
                    )
                }
        }
    }
}
