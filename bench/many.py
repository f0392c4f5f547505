"""A platform with a thousand playgrounds. It serves only their list."""
import http.server, json, pathlib, sys

plays = [
    {"id": f"0123456789abcdef{i:08x}", "title": f"playground {i}", "playground": {"name": f"name-{i % 50}"},
     "machines": [{"name": f"node-{m}", "users": [{"name": "laborant", "default": True}]} for m in range(1 + i % 3)],
     "status": {"stateEvents": [{"state": "RUNNING"}], "machines": []}}
    for i in range(1000)
]
answer = json.dumps(plays).encode()

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"[]" if "persistent" in self.path else answer if self.path.startswith("/api/plays") else b"[]"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
pathlib.Path(sys.argv[1], "port").write_text(str(server.server_port))
server.serve_forever()
