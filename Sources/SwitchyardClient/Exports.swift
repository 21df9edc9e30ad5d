// SPDX-License-Identifier: Apache-2.0

// Code that imports the client can name its messages and status codes without a second import.
@_exported public import RPCCore
@_exported public import SwitchyardProtos
