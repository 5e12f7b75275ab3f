// A memory with one write and one read port; what is read comes two cycles after its address (output register).
// A word that is read in the cycle in which it is written is of no value: chips differ there, and to make them alike
// costs logic. The simulation gives a wrong one, so that whoever relied on it would be found out.
module ram #(
    parameter int WIDTH = 64,
    parameter int LOG2 = 10
) (
    input  logic             clk,
    input  logic             write,
    input  logic [ LOG2-1:0] write_address,
    input  logic [WIDTH-1:0] write_data,
    input  logic [ LOG2-1:0] read_address,
    output logic [WIDTH-1:0] read_data
);
  (* ram_style = "block", no_rw_check *) logic [WIDTH-1:0] cells [0:(1<<LOG2)-1];
  logic [WIDTH-1:0] read_cell;
  always_ff @(posedge clk) begin
    if (write) cells[write_address] <= write_data;
`ifdef VERILATOR
    read_cell <= write && write_address == read_address ? ~write_data : cells[read_address];
`else
    read_cell <= cells[read_address];
`endif
    read_data <= read_cell;
  end
endmodule
