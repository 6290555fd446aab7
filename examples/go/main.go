// Asks an agent, and prints what happens.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runwire "runwire.example/gen/runwire/v1"
)

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	stream, err := runwire.NewEngineServiceClient(connection).Run(context.Background(), &runwire.RunRequest{Agent: "triage", Input: os.Args[2]})
	check(err)
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			return
		}
		check(err)
		for _, event := range response.Events {
			fmt.Printf("%d %s %T\n", event.Seq, event.Agent, event.Kind)
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
