// Command riverrun-polyglot is a Riverrun client in Go: the generated stubs and the standard
// library, no helper. It prints what it saw as JSON, and the tests in Python judge that.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const usage = "usage: riverrun-polyglot vectors FILE | (tour | produce | read | member) HOST:PORT TOPIC"

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	deeds := map[string]func(context.Context, *grpc.ClientConn, string) any{
		"tour": tour, "produce": produce, "read": read, "member": member,
	}
	var seen any
	if len(os.Args) == 3 && os.Args[1] == "vectors" {
		seen = checkVectors(os.Args[2])
	} else if len(os.Args) == 4 && deeds[os.Args[1]] != nil {
		conn := must(grpc.NewClient(os.Args[2], grpc.WithTransportCredentials(insecure.NewCredentials())))
		defer conn.Close()
		seen = deeds[os.Args[1]](ctx, conn, os.Args[3])
	} else {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	check(json.NewEncoder(os.Stdout).Encode(seen))
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
