"""A company's application with Flask: the blueprint of docs/page.md and as much around it as a test needs. It prints
{"port": …} when it is ready, and ends when its standard input does."""
import json
import sys
import threading

from flask import Flask, redirect, session
from werkzeug.serving import make_server

from handoff import handoff

app = Flask(__name__)
app.secret_key = "for tests only"
app.register_blueprint(handoff)


@app.get("/in/<user>")
def enter(user):
    session["user"] = user
    return redirect("/settings")


@app.get("/settings")
def settings():
    with open("embed.html", encoding="utf-8") as file:
        return file.read()


server = make_server("127.0.0.1", 0, app, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"port": server.port}), flush=True)
sys.stdin.read()
