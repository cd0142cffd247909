"""moto, an S3 server, with one write at a time: it checks conditions without a lock.

Takes the arguments of `moto_server`. Importing it is enough for a server in the same process.
"""

from threading import Lock

from moto.server import DomainDispatcherApplication, main

writing = Lock()
handle = DomainDispatcherApplication.__call__


def handle_serially(self, environ, start_response):
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        return handle(self, environ, start_response)
    with writing:
        return handle(self, environ, start_response)


DomainDispatcherApplication.__call__ = handle_serially

if __name__ == "__main__":
    main()
