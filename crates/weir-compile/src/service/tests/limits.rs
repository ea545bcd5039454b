// SPDX-License-Identifier: Apache-2.0
//! Maps that are full.
