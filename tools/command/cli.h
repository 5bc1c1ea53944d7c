// SPDX-License-Identifier: Apache-2.0
// Command line: what the user wrote becomes the call of one command (tools/command/commands.h), and
// what that returns the exit code. Usage errors and bad input are 2.
#pragma once

namespace twinspool {

int run_command_line(int argc, char** argv);

}  // namespace twinspool
