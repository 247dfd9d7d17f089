"""What fibers do, as plain assertions: test_fiber.py runs it under each CPython it finds."""

import contextvars
import gc
import sys
import threading
import weakref


def program(Fiber, FiberExit):  # noqa: N803
    """Assert everything."""
    main = Fiber.getcurrent()

    def talk(first, second=2):
        got = main.switch(first + second)
        try:
            main.switch(got * 2)
        except KeyError as error:
            assert sys.exc_info()[1] is error
            got = main.switch(("caught", error.args))
            assert sys.exc_info()[1] is error  # not lost while others ran
        assert sys.exc_info()[1] is None
        return "end"

    # values, throw, ends
    fiber = Fiber(talk)
    assert not fiber and not fiber.dead
    assert fiber.switch(1, second=3) == 4
    assert fiber and fiber.frame.f_code.co_name == "talk"
    try:
        raise ValueError
    except ValueError as error:
        assert fiber.switch(10) == 20
        assert fiber.throw(KeyError, "k") == ("caught", ("k",))
        assert sys.exc_info()[1] is error
    assert fiber.switch(1, 2) == "end" and fiber.dead and not fiber
    assert fiber.switch(7) == 7  # its parent takes the place of a dead one

    def echo(*args):
        while True:
            args = main.switch(args)

    fiber = Fiber(echo)
    assert fiber.switch() == ()
    assert [fiber.switch(), fiber.switch(1), fiber.switch(1, 2), fiber.switch(a=1),
            fiber.switch(1, a=2)] == [None, 1, (1, 2), {"a": 1}, ((1,), {"a": 2})]

    # an exception goes to the parent, with its traceback; FiberExit is a value
    def fail():
        raise ZeroDivisionError("here")

    outer = Fiber(lambda: Fiber(fail).switch())
    try:
        outer.switch()
    except ZeroDivisionError as error:
        names = []
        trace = error.__traceback__
        while trace is not None:
            names.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        assert names == ["program", "<lambda>", "fail"], names
    else:
        raise AssertionError
    assert outer.dead
    assert isinstance(fiber.throw(), FiberExit) and fiber.dead
    never = Fiber(fail)
    assert isinstance(never.throw(), FiberExit) and never.dead
    try:
        Fiber(fail).throw(OSError("x"))
    except OSError as error:
        assert error.args == ("x",)
    else:
        raise AssertionError

    # a parent of one's own choice; an outcome passes dead ones
    middle = Fiber(lambda value: ("middle", value))
    assert Fiber(lambda: 5, middle).switch() == ("middle", 5) and middle.dead
    assert Fiber(lambda: 6, middle).switch() == 6
    fiber = Fiber(fail)
    for wrong in (lambda: setattr(fiber, "parent", fiber), lambda: setattr(main, "parent", fiber)):
        try:
            wrong()
        except ValueError:
            pass
        else:
            raise AssertionError

    # from the middle of a C function, and within generators
    def keyed():
        return sorted([3, 1, 2], key=main.switch)

    fiber = Fiber(keyed)
    value = fiber.switch()
    while not fiber.dead:
        value = fiber.switch(-value)
    assert value == [3, 2, 1]

    def numbers():
        while True:
            yield main.switch("want")

    fiber = Fiber(lambda: next(numbers()))
    assert fiber.switch() == "want" and fiber.switch(8) == 8

    # depth is limited before the stack is
    def deep(n):
        return n and 1 + deep(n - 1)

    assert Fiber(deep).switch(500) == 500

    class Mirror:
        def __getattr__(self, name):
            return getattr(self, name + "x")

    nested = []
    for _ in range(100_000):
        nested = [nested]
    for endless in (lambda: Mirror().a, lambda: deep(10**6), lambda: repr(nested)):
        try:
            Fiber(endless, stack_size=1 << 17).switch()
        except RecursionError:
            pass
        else:
            raise AssertionError
    while nested:
        nested = nested[0]
    assert deep(500) == 500

    # contextvars: a copy, and one's own
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(1)

    def context():
        assert variable.get() == 1
        variable.set(2)
        main.switch()
        return variable.get()

    fiber = Fiber(context)
    fiber.switch()
    assert variable.get() == 1
    variable.set(3)
    assert fiber.switch() == 2 and variable.get() == 3

    # unfinished ones are ended: by the last reference, in cycles, by other threads
    log = []

    def unfinished():
        try:
            main.switch()
        finally:
            log.append(Fiber.getcurrent() is not main)

    fiber = Fiber(unfinished)
    fiber.switch()
    del fiber
    assert log == [True]

    class Thing:
        pass

    def cycle():
        thing = Thing()

        def run():
            kept = thing
            try:
                main.switch()
            finally:
                log.append((kept, fiber))

        fiber = Fiber(run)
        fiber.switch()
        return weakref.ref(thing)

    thing = cycle()
    assert thing() is not None
    gc.collect()
    assert len(log) == 2
    log.clear()
    gc.collect()
    assert thing() is None

    def stubborn():
        try:
            main.switch()
        except FiberExit:
            main.switch()

    import warnings
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fiber = Fiber(stubborn)
        fiber.switch()
        del fiber
    assert "is lost" in str(caught[0].message)

    holder = [Fiber(unfinished)]
    holder[0].switch()

    def elsewhere():
        try:
            holder[0].switch()
        except RuntimeError as error:
            log.append(str(error))
        holder.clear()
        assert Fiber.getcurrent() is not main
        log.append(Fiber(lambda: threading.get_ident()).switch() == threading.get_ident())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert log == ["switching to a fiber of another thread", True]
    Fiber(int).switch()  # the next switch ends what the other thread dropped
    assert log[2:] == [True]

    # an ended thread's fibers are of no more use, and no danger
    def leaves():
        own = Fiber.getcurrent()
        holder.append(Fiber(lambda: own.switch()))
        holder[0].switch()

    thread = threading.Thread(target=leaves)
    thread.start()
    thread.join()
    try:
        holder[0].switch()
    except RuntimeError:
        pass
    else:
        raise AssertionError
    holder.clear()

    # many, and the garbage collector in between
    many = [Fiber(lambda n: main.switch(n) + n) for _ in range(3000)]
    assert sum(each.switch(n) for n, each in enumerate(many)) == sum(range(3000))
    gc.collect()
    assert sum(each.switch(1) for each in many) == sum(range(3000)) + 3000
    for n in range(5000):
        assert Fiber(deep).switch(n % 50) == n % 50

    # trace functions see what runs in fibers, and go on after a switch
    lines = []

    def trace(frame, event, argument):
        lines.append((frame.f_code.co_name, event))

    fiber = Fiber(talk)
    sys.settrace(trace)
    fiber.switch(1)
    deep(0)
    sys.settrace(None)
    assert ("talk", "call") in lines and ("deep", "call") in lines

    # a subclass with a method run
    class Sub(Fiber):
        def run(self, value):
            return self, value

    sub = Sub()
    assert sub.switch(4) == (sub, 4)
    sub.mark = 1
    assert weakref.ref(sub)() is sub
    for wrong in (lambda: Fiber(5), lambda: Fiber(stack_size=0), lambda: Fiber().switch(),
                  lambda: sub.throw(5), lambda: sub.run):
        if wrong is None:
            continue
        try:
            wrong()
        except (TypeError, ValueError, AttributeError):
            pass
        else:
            assert wrong.__code__.co_names[-1] == "run"  # the method is there for ever


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    from _fiber import Fiber, FiberExit

    program(Fiber, FiberExit)
    print("all")
