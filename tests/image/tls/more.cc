// SPDX-License-Identifier: MIT
// A thread-local variable of a C++ unit, whose initial value the compiler knows.
struct Turns {
    int before;
    unsigned char turn;
};

static thread_local Turns turns = {5, 30};

extern "C" unsigned char other_turn()
{
    return static_cast<unsigned char>(++turns.turn + (turns.before - 5));
}
