// Stand-ins for two peers that are not available everywhere. The server is a platform whose tunnels behave as wsmux's
// server is known to: messages of 1 KiB, TCP written inside the read loop, a ping every 30 s, no Close. The client sends
// and receives as wsmux's client does. Neither is wsmux, and the figures against them say so.
//
//	standin server --listen ADDR (--target ADDR | --tunnels URL) [--cert FILE --key FILE] [--user NAME]
//	standin client --listen ADDR --url URL
package main

import (
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const (
	chunk  = 1024
	cookie = ".ixcondsess"
	token  = "standin"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("standin server|client")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "where to listen")
	target := flags.String("target", "", "where every tunnel leads")
	tunnels := flags.String("tunnels", "", "another server's URL, a real wsmux's, that serves the tunnels")
	cert := flags.String("cert", "", "PEM file of a certificate, for TLS")
	key := flags.String("key", "", "PEM file of its key")
	user := flags.String("user", "", "the machine's only user; by default the client's own default")
	url := flags.String("url", "", "the tunnel's ws or wss URL, without its path")
	flags.Parse(os.Args[2:])
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	switch os.Args[1] {
	case "server":
		server := &server{target: *target, tunnels: *tunnels, user: *user, scheme: "http"}
		if *cert == "" {
			log.Fatal(http.Serve(listener, server))
		}
		server.scheme = "https"
		log.Fatal(http.ServeTLS(listener, server, *cert, *key))
	case "client":
		for {
			conn, err := listener.Accept()
			if err != nil {
				log.Fatal(err)
			}
			go forward(conn, *url)
		}
	default:
		log.Fatal("standin server|client")
	}
}

type server struct{ target, tunnels, user, scheme string }

// The only playground's id in the list. An account asks for any id, and gets it.
const listed = "0123456789abcdef01234567"

func (s *server) play(id string) string {
	users := ""
	if s.user != "" {
		users = fmt.Sprintf(`{"name":%q,"default":true}`, s.user)
	}
	return fmt.Sprintf(`{"id":%q,"title":"bench","playground":{"name":"bench"},"machines":[{"name":"m","users":[%s]}],`+
		`"status":{"stateEvents":[{"state":"RUNNING"}],"machines":[{"name":"m","state":"RUNNING",`+
		`"conditions":[{"name":"Ready","status":"True"}]}]}}`, id, users)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	base := s.scheme + "://" + r.Host
	switch {
	case strings.HasPrefix(r.URL.Path, "/tunnels/"):
		s.tunnel(w, r)
	case r.URL.Path == "/login":
		http.SetCookie(w, &http.Cookie{Name: cookie, Value: token, Path: "/"})
	case strings.HasSuffix(r.URL.Path, "/tunnels"):
		tunnels := s.tunnels
		if tunnels == "" {
			tunnels = base
		}
		fmt.Fprintf(w, `{"url":%q,"loginUrl":%q}`, tunnels, base+"/login")
	case r.URL.Path == "/api/plays" && r.URL.RawQuery == "":
		fmt.Fprintf(w, "[%s]", s.play(listed))
	case r.URL.Path == "/api/plays":
		fmt.Fprint(w, "[]")
	case strings.HasPrefix(r.URL.Path, "/api/plays/"):
		fmt.Fprint(w, s.play(strings.TrimPrefix(r.URL.Path, "/api/plays/")))
	default:
		http.NotFound(w, r)
	}
}

var upgrader = websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}

func (s *server) tunnel(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(cookie); err != nil || c.Value != token {
		http.Error(w, "log in first", http.StatusUnauthorized)
		return
	}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer ws.Close()
	tcp, err := net.Dial("tcp", s.target)
	if err != nil {
		return
	}
	defer tcp.Close()
	go func() {
		for range time.Tick(30 * time.Second) {
			if ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(10*time.Second)) != nil {
				return
			}
		}
	}()
	go send(ws, tcp)
	receive(tcp, ws)
}

func forward(tcp net.Conn, url string) {
	defer tcp.Close()
	path := "/tunnels/" + base64.StdEncoding.EncodeToString([]byte(":22"))
	header := http.Header{"Cookie": {cookie + "=" + token}}
	ws, _, err := websocket.DefaultDialer.Dial(url+path, header)
	if err != nil {
		log.Print(err)
		return
	}
	defer ws.Close()
	go receive(tcp, ws)
	send(ws, tcp)
}

// Copies from TCP to messages. Sends nothing at the end of TCP.
func send(ws *websocket.Conn, tcp net.Conn) {
	buffer := make([]byte, chunk)
	for {
		n, err := tcp.Read(buffer)
		if n > 0 && ws.WriteMessage(websocket.BinaryMessage, buffer[:n]) != nil || err != nil {
			return
		}
	}
}

// Copies from messages to TCP.
func receive(tcp net.Conn, ws *websocket.Conn) {
	for {
		kind, reader, err := ws.NextReader()
		if err != nil || kind != websocket.BinaryMessage {
			return
		}
		if _, err := io.Copy(tcp, reader); err != nil {
			return
		}
	}
}
